"""A provider's plan in our own terms, and what makes two plans the same package.

Payload -> `resources.providers.<slug>.parse_*` -> `ProviderOffer` -> `check_offer` -> grouped by `package_key`.
Providers count data differently; `nominal_mb` turns their figures into the size on the label (1 GB is 1000 MB).
"""

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

from esim.errors import InvalidOffer
from esim.geography import Coverage, Destination, DestinationType, destination_of
from esim.money import MICROS, Cost

MIN_DATA_MB = 10
MAX_DATA_MB = 1_000_000
MAX_COST_MICROS = 2_500 * MICROS  # the dearest real plan costs some USD 500; a price x 10,000 lands far above
MAX_VALIDITY_DAYS = 400
MAX_NAME_LENGTH = 300


class OfferKind(StrEnum):
    """What is bought: a new eSIM with a plan, or data for an eSIM that exists."""

    PLAN = "plan"
    TOP_UP = "top_up"


class Allowance(StrEnum):
    """How data is counted: a total for the whole term, a daily allowance, or no limit at all."""

    TOTAL = "total"
    DAILY = "daily"
    UNLIMITED = "unlimited"


@dataclass(frozen=True, slots=True)
class ProviderOffer:
    """One provider's plan, normalised. Sizes are nominal megabytes (1 GB = 1000 MB), terms are days.

    `data_mb` is None for unlimited plans. For daily plans it is the allowance *per day*. `throttle_kbps` is the speed
    after the (daily) allowance, None where there is none or it is not told. `order_hints` carries what the provider's
    order call needs besides the id (MobiMatter's category, say). `raw_data` keeps the provider's own data figure.
    """

    provider: str
    provider_package_id: str
    name: str
    kind: OfferKind
    coverage: Coverage
    allowance: Allowance
    data_mb: int | None
    validity_days: int
    cost: Cost
    daily_mb: int | None = None
    throttle_kbps: int | None = None
    voice_minutes: int = 0
    sms: int = 0
    networks: tuple[str, ...] = ()
    min_retail: Cost | None = None
    recommended_retail: Cost | None = None
    stock: int | None = None
    raw_data: str = ""
    supports_top_up: bool | None = None
    order_hints: dict[str, str] = field(default_factory=dict)

    @property
    def offer_id(self) -> str:
        """The offer's identity everywhere: `<provider>:<provider_package_id>`."""
        return f"{self.provider}:{self.provider_package_id}"

    @property
    def destination(self) -> Destination:
        """Where the plan is for."""
        return destination_of(self.coverage.countries)

    @property
    def unlimited(self) -> bool:
        """Whether data never runs out (it may slow down)."""
        return self.allowance is Allowance.UNLIMITED


@dataclass(frozen=True, slots=True)
class RejectedPlan:
    """A plan that could not be read or sold, kept with its reason and a bounded piece of its payload."""

    provider: str
    provider_package_id: str
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class CataloguePage:
    """One page of a provider's catalogue; `pages` is the number of pages where the provider tells it."""

    offers: tuple[ProviderOffer, ...]
    rejects: tuple[RejectedPlan, ...] = ()
    page: int = 1
    pages: int | None = None


def nominal_mb(amount_mb: int | Decimal, *, megabytes_per_gigabyte: int) -> int:
    """Return the size on the label for `amount_mb` counted with 1000 or 1024 MB to the GB.

    Multiples of half a binary gigabyte become decimal ones (1536 -> 1500); other figures, such as 500 MB, stay.
    """
    amount = Decimal(amount_mb)
    if megabytes_per_gigabyte == 1024 and amount % 512 == 0:
        amount = amount * 1000 / 1024
    return int(amount.to_integral_value())


def check_offer(offer: ProviderOffer) -> None:
    """Refuse an offer whose figures cannot be right.

    Raises:
        InvalidOffer: no country, no name, a name, size, term or cost outside the sane range; the message says which.
    """
    if not offer.provider_package_id or not offer.name.strip():
        raise InvalidOffer("the plan has no id or no name", field="provider_package_id")
    if max(len(offer.name), len(offer.provider_package_id)) > MAX_NAME_LENGTH:
        raise InvalidOffer(f"the plan's name or id is longer than {MAX_NAME_LENGTH} characters", field="name")
    if not offer.coverage.countries:
        unknown = ", ".join(offer.coverage.unmapped) or "none given"
        raise InvalidOffer(f"no ISO country in its coverage ({unknown})", field="coverage")
    if not 1 <= offer.validity_days <= MAX_VALIDITY_DAYS:
        raise InvalidOffer(
            f"validity of {offer.validity_days} days is not 1 to {MAX_VALIDITY_DAYS}", field="validity_days"
        )
    _check_size(offer)
    if not 0 < offer.cost.micros <= MAX_COST_MICROS * _weakest_currency_factor(offer.cost.currency):
        raise InvalidOffer(f"cost {offer.cost} is zero, negative or absurdly high", field="cost")


def _check_size(offer: ProviderOffer) -> None:
    if offer.unlimited:
        return
    if offer.data_mb is None or not MIN_DATA_MB <= offer.data_mb <= MAX_DATA_MB:
        raise InvalidOffer(
            f"data of {offer.data_mb} MB is not {MIN_DATA_MB} MB to 1 TB and not unlimited", field="data_mb"
        )


def _weakest_currency_factor(currency: str) -> int:
    return 1 if currency in {"USD", "EUR", "GBP"} else 30_000


def package_key(offer: ProviderOffer) -> str:
    """Return the public package id: equal for offers with equal coverage, nominal data, validity and kind.

    The id is readable and stable across syncs: `jp-5gb-30d`, `europe-42-1gb-7d-3f9c2a`, with parts for daily or
    unlimited allowances (`daily`, `unl`, their throttle), voice, SMS and top-up. Coverages of several countries end in
    a digest of the country list, because two regional plans of equal name may differ by a country.
    """
    countries = offer.coverage.countries
    destination = destination_of(countries)
    parts = [destination.code.lower()]
    if destination.type is not DestinationType.COUNTRY:
        parts.append(str(len(countries)))
    parts += [_size_part(offer), f"{offer.validity_days}d"]
    if offer.voice_minutes:
        parts.append(f"{offer.voice_minutes}min")
    if offer.sms:
        parts.append(f"{offer.sms}sms")
    if offer.kind is OfferKind.TOP_UP:
        parts.append("topup")
    if destination.type is not DestinationType.COUNTRY:
        parts.append(coverage_digest(countries))
    return "-".join(parts)


@lru_cache(maxsize=4096)
def coverage_digest(countries: tuple[str, ...]) -> str:
    """Return six hex digits that tell country lists apart."""
    return blake2b(",".join(countries).encode(), digest_size=3).hexdigest()


def _size_part(offer: ProviderOffer) -> str:
    if offer.allowance is Allowance.UNLIMITED:
        head = "unl"
        if offer.daily_mb is not None:
            head += f"-{size_label(offer.daily_mb)}"
    else:
        head = size_label(offer.data_mb or 0)
        if offer.allowance is Allowance.DAILY:
            head += "-daily"
    return head if offer.throttle_kbps is None else f"{head}-{offer.throttle_kbps}k"


def size_label(data_mb: int) -> str:
    """Return `5gb`, `1.5gb` or `500mb` for a nominal size in megabytes."""
    if data_mb < 1000:
        return f"{data_mb}mb"
    return f"{Decimal(data_mb).scaleb(-3).normalize():f}gb"
