"""What the shop's pages show, from the snapshot: destinations, plans, choices. Pure; no HTML here."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from pydantic import ValidationError

from api.schemas.catalogue import DestinationQuery, PackageQuery
from api.services.browse_catalogue import find_destinations, select_packages
from api.snapshot import CatalogueSnapshot, DestinationListing, Listing
from esim.catalogue import Allowance
from esim.money import Money, exponent

SHOWN_PLANS = 250
SHOWN_NETWORKS = 4
_LONGEST_WORDS = 80
POPULAR = ("JP", "US", "TH", "FR", "ES", "IT", "GB", "TR", "KR", "europe", "asia", "global")
SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}

DATA_CHOICES = (
    (0, "Any"),
    (1000, "1 GB or more"),
    (3000, "3 GB or more"),
    (5000, "5 GB or more"),
    (10_000, "10 GB or more"),
    (20_000, "20 GB or more"),
    (50_000, "50 GB or more"),
)
DAY_CHOICES = (
    (1, "Any length"),
    (3, "3 days or more"),
    (7, "7 days or more"),
    (14, "14 days or more"),
    (30, "30 days or more"),
)
SORT_CHOICES = (("price", "Cheapest"), ("value", "Best value"), ("data", "Most data"), ("days", "Longest"))


@dataclass(frozen=True, slots=True)
class PlanCard:
    """One plan as its card shows it."""

    id: str
    label: str
    data: str
    per_day: bool
    days: int
    extras: str
    coverage: tuple[str, ...]
    networks: Sequence[str]
    price: str
    price_minor: int
    best_price: bool


def money(minor: int, currency: str) -> str:
    """Return an amount as a customer reads it: `$4.99`, `4.99 CHF`."""
    places = exponent(currency)
    amount = f"{Decimal(minor).scaleb(-places):,.{places}f}"
    symbol = SYMBOLS.get(currency)
    return f"{symbol}{amount}" if symbol else f"{amount} {currency}"


def front_page(
    snapshot: CatalogueSnapshot, params: Mapping[str, str], currencies: Sequence[str]
) -> Mapping[str, object]:
    """Return what the front page shows for its query parameters: one destination's plans, or destinations."""
    query, asked = _filters(params, currencies), params.get("q", "").strip()[:_LONGEST_WORDS]
    here = snapshot.destinations.get(query.destination or "")
    words = asked or params.get("destination", "")[:_LONGEST_WORDS]
    found, others = ((), ()) if here else _places(snapshot, words, query.currency)
    if here is None and asked and len(found) == 1:
        here, found = found[0], ()
    page, more = select_packages(snapshot, query.model_copy(update={"destination": here.code})) if here else ([], False)
    return {
        "here": here,
        "from_price": here.from_price(query.currency) if here else None,
        "asked": "" if here else words,
        "found": found,
        "others": others,
        "count": len(others),
        "plans": [_card(listing, query.currency) for _, listing in page],
        "more": more,
        "covers": max((len(listing.package.coverage) for _, listing in page), default=1),
        "chosen": query,
        "currency": query.currency,
        "currencies": currencies,
        "data_choices": DATA_CHOICES,
        "day_choices": DAY_CHOICES,
        "sort_choices": SORT_CHOICES,
    }


def _filters(params: Mapping[str, str], currencies: Sequence[str]) -> PackageQuery:
    """Read a page's filters; what cannot be read counts as not chosen, because a page has no problem documents."""
    chosen: dict[str, object] = {"min_data_mb": 0, "min_days": 1, "limit": SHOWN_PLANS}
    for name in ("destination", "min_data_mb", "min_days", "sort", "currency"):
        with suppress(ValidationError):
            read = PackageQuery.model_validate({name: params[name]} if name in params else {})
            chosen |= read.model_dump(include={name}) if name in params else {}
    if chosen.get("currency", "USD") not in currencies:
        chosen["currency"] = currencies[0]
    return PackageQuery.model_validate(chosen)


def _places(
    snapshot: CatalogueSnapshot, asked: str, currency: str
) -> tuple[Sequence[DestinationListing], Sequence[DestinationListing]]:
    """Return the destinations to show first (those that match, or the popular ones), and all others by name."""
    found = find_destinations(snapshot, DestinationQuery(q=asked or None, currency=currency))
    if asked:
        return found, ()
    known = {place.code: place for place in found}
    popular = [known[code] for code in POPULAR if code in known] or found[: len(POPULAR)]
    return popular, found


def data_label(data_mb: int | None) -> str:
    """Return `5 GB`, `1.5 GB`, `500 MB` or `Unlimited`."""
    if data_mb is None:
        return "Unlimited"
    return f"{data_mb} MB" if data_mb < 1000 else f"{Decimal(data_mb).scaleb(-3).normalize():f} GB"


def _card(listing: Listing, currency: str) -> PlanCard:
    package = listing.package
    daily = package.allowance == Allowance.DAILY
    data, price = data_label(package.data_mb), Money(package.prices[currency], currency)
    extras = [
        f"{package.voice_minutes} minutes" if package.voice_minutes else "",
        f"{package.sms} SMS" if package.sms else "",
    ]
    if package.data_mb is None and package.daily_mb:
        extras.append(f"full speed for {data_label(package.daily_mb)} a day")
    days = f"{package.validity_days} day{'s' if package.validity_days > 1 else ''}"
    return PlanCard(
        id=package.package_id,
        label=f"{package.destination_name}: {data}{' a day' if daily else ''}, {days}",
        data=data,
        per_day=daily,
        days=package.validity_days,
        extras=", ".join(filter(None, extras)),
        coverage=package.coverage,
        networks=package.networks[:SHOWN_NETWORKS],
        price=money(price.minor, currency),
        price_minor=price.minor,
        best_price=listing.best_price,
    )
