"""Offers as tables: the declared schemas, and how a stream of `ProviderOffer` becomes rows and rejects.

`ProviderOffer` -> `check_offer` -> `OfferRows` -> `offers_frame`. One plan that cannot be sold or stored becomes one
reject with its reason; nothing is dropped in silence. Amounts are integer micro-units of the quoted currency.
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b

import polars as pl

from esim.catalogue import CataloguePage, ProviderOffer, RejectedPlan, check_offer, package_key
from esim.errors import InvalidOffer
from esim.geography import Destination, destination_of

MAX_PAYLOAD = 500
_SEPARATOR = "\x1f"
_UNSTORABLE = re.compile("[\x00\x1e\x1f\ud800-\udfff]")  # what separates values on their way, and lone surrogates
_LISTS = ("coverage", "unmapped", "networks")
_INT32 = 2_147_483_647
_MAX_AMOUNT = 9_000_000_000_000  # in micro-units it still fits 64 bits

OFFERS: dict[str, pl.DataType] = {
    "offer_id": pl.String(),
    "provider": pl.String(),
    "provider_package_id": pl.String(),
    "package_id": pl.String(),
    "name": pl.String(),
    "kind": pl.String(),
    "destination_code": pl.String(),
    "destination_type": pl.String(),
    "coverage": pl.List(pl.String()),
    "coverage_key": pl.String(),
    "unmapped": pl.List(pl.String()),
    "allowance": pl.String(),
    "data_mb": pl.Int64(),
    "daily_mb": pl.Int64(),
    "throttle_kbps": pl.Int64(),
    "validity_days": pl.Int64(),
    "voice_minutes": pl.Int64(),
    "sms": pl.Int64(),
    "networks": pl.List(pl.String()),
    "cost_micros": pl.Int64(),
    "cost_currency": pl.String(),
    "min_retail_micros": pl.Int64(),
    "min_retail_currency": pl.String(),
    "recommended_retail_micros": pl.Int64(),
    "recommended_retail_currency": pl.String(),
    "stock": pl.Int64(),
    "raw_data": pl.String(),
    "supports_top_up": pl.Boolean(),
    "order_hints": pl.String(),
}
# What the comparison with the last good catalogue adds.
JUDGED: dict[str, pl.DataType] = {
    **OFFERS,
    "excluded_reason": pl.String(),
    "trusted_cost_micros": pl.Int64(),
    "trusted_cost_currency": pl.String(),
}
REJECTS: dict[str, pl.DataType] = {
    "provider": pl.String(),
    "provider_package_id": pl.String(),
    "reason": pl.String(),
    "payload": pl.String(),
}
REJECTED_PLANS: dict[str, pl.DataType] = {
    **REJECTS,
    "sync_id": pl.String(),
    "synced_at": pl.Datetime("us", "UTC"),
}
COLUMN_NOTES: dict[str, str] = {
    "offer_id": "<provider>:<provider_package_id>",
    "package_id": "the package this offer can serve: equal coverage, nominal data, validity and kind",
    "coverage": "ISO 3166-1 alpha-2 codes, sorted",
    "coverage_key": "equal for equal coverage: the country code, or count and digest of the list",
    "unmapped": "coverage codes of the provider that are no ISO country",
    "data_mb": "nominal megabytes (1 GB = 1000 MB); per day for daily allowances; null for unlimited",
    "daily_mb": "full-speed megabytes per day of an unlimited plan",
    "throttle_kbps": "speed after the allowance",
    "validity_days": "days",
    "cost_micros": "wholesale cost, 10^-6 of cost_currency",
    "min_retail_micros": "the provider's minimum selling price, 10^-6 of its currency",
    "recommended_retail_micros": "the provider's recommended selling price, 10^-6 of its currency",
    "stock": "units left where the provider tells",
    "raw_data": "the provider's own data figure",
    "order_hints": "JSON: what the order call needs besides the id",
    "excluded_reason": "why this offer is quarantined; null when it may be sold",
    "trusted_cost_micros": "the last cost that was not quarantined, 10^-6 of its currency",
}


class OfferRows:
    """Collects one provider's catalogue page by page: rows ready for a frame, and rejects with reasons."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.rejects: list[RejectedPlan] = []
        self.repeats = 0
        self._rows: list[tuple[object, ...]] = []
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, page: CataloguePage) -> None:
        """Take one page in."""
        self.rejects += page.rejects
        for offer in page.offers:
            try:
                check_offer(offer)
                _check_storable(offer)
                self._append(offer)
            except InvalidOffer as error:
                self._reject(offer, str(error))

    def frame(self) -> pl.DataFrame:
        """Return the rows, sorted by offer id."""
        return _frame(self._rows)

    def rejects_frame(self) -> pl.DataFrame:
        """Return the rejects with bounded payloads."""
        rows = [
            (_clean(r.provider), _clean(r.provider_package_id), _clean(r.reason), _clean(r.payload))
            for r in self.rejects
        ]
        return pl.DataFrame(rows, schema=REJECTS, orient="row")

    def _append(self, offer: ProviderOffer) -> None:
        row = _row(offer)
        place = self._seen.setdefault(offer.provider_package_id, len(self._rows))
        if place == len(self._rows):
            self._rows.append(row)
        elif self._rows[place] == row:
            self.repeats += 1
        else:
            raise InvalidOffer("this id is listed twice with different figures; the first is kept")

    def _reject(self, offer: ProviderOffer, reason: str) -> None:
        self.rejects.append(RejectedPlan(self.provider, offer.provider_package_id, reason, repr(offer)[:MAX_PAYLOAD]))


def offers_frame(offers: Iterable[ProviderOffer]) -> pl.DataFrame:
    """Return a frame of offers that are known to be sane, sorted by offer id."""
    return _frame([_row(offer) for offer in offers])


def empty_offers() -> pl.DataFrame:
    """Return a judged catalogue without rows."""
    return pl.DataFrame(schema=JUDGED)


def rejected_plans(rejects: pl.DataFrame, sync_id: str, at: datetime) -> pl.DataFrame:
    """Return rejects as rows of `raw.rejected_plans`."""
    return rejects.with_columns(sync_id=pl.lit(sync_id), synced_at=pl.lit(at)).cast(REJECTED_PLANS)  # type: ignore[arg-type]  # polars' stubs want a mapping of selectors


def _frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    # Lists travel as joined text: building list columns from Python objects costs ten times more.
    as_text = {name: pl.String() if name in _LISTS else kind for name, kind in OFFERS.items()}
    columns = zip(*rows, strict=True) if rows else ([] for _ in OFFERS)
    frame = pl.DataFrame(
        [pl.Series(name, list(values), dtype=as_text[name]) for name, values in zip(OFFERS, columns, strict=True)]
    )
    none = pl.lit([], dtype=pl.List(pl.String))
    lists = [pl.when(pl.col(name) == "").then(none).otherwise(pl.col(name).str.split(_SEPARATOR)) for name in _LISTS]
    return frame.with_columns(expr.alias(name) for name, expr in zip(_LISTS, lists, strict=True)).sort("offer_id")


@lru_cache(maxsize=4096)
def _place(countries: tuple[str, ...]) -> tuple[Destination, str, str]:
    """Return destination, coverage key and the joined list of countries."""
    joined = _SEPARATOR.join(countries)
    if len(countries) == 1:
        return destination_of(countries), countries[0], joined
    digest = blake2b(joined.encode(), digest_size=8).hexdigest()
    return destination_of(countries), f"{len(countries)}-{digest}", joined


def _row(offer: ProviderOffer) -> tuple[object, ...]:
    destination, coverage_key, coverage = _place(offer.coverage.countries)
    minimum, recommended = offer.min_retail, offer.recommended_retail
    return (
        offer.offer_id,
        offer.provider,
        offer.provider_package_id,
        package_key(offer),
        offer.name,
        offer.kind.value,
        destination.code,
        destination.type.value,
        coverage,
        coverage_key,
        _SEPARATOR.join(offer.coverage.unmapped),
        offer.allowance.value,
        offer.data_mb,
        offer.daily_mb,
        offer.throttle_kbps,
        offer.validity_days,
        offer.voice_minutes,
        offer.sms,
        _SEPARATOR.join(offer.networks),
        offer.cost.micros,
        offer.cost.currency,
        minimum and minimum.micros,
        minimum and minimum.currency,
        recommended and recommended.micros,
        recommended and recommended.currency,
        offer.stock,
        offer.raw_data,
        offer.supports_top_up,
        _hints(tuple(offer.order_hints.items())),
    )


@lru_cache(maxsize=4096)
def _hints(hints: tuple[tuple[str, str], ...]) -> str:
    """Return hints as PostgreSQL prints JSONB: keys by length, then bytes; so that unchanged hints compare equal."""
    ordered = sorted(hints, key=lambda item: (len(item[0].encode()), item[0].encode()))
    return json.dumps(dict(ordered), ensure_ascii=False)


def _check_storable(offer: ProviderOffer) -> None:
    """Refuse what no table can hold: texts that are no UTF-8, numbers beyond their column."""
    hints = (text for hint in offer.order_hints.items() for text in hint) if offer.order_hints else ()
    if _UNSTORABLE.search("\n".join((offer.name, offer.provider_package_id, offer.raw_data, *offer.networks, *hints))):
        raise InvalidOffer("a text holds a control character (NUL, record or unit separator) or is not valid Unicode")
    for number in (offer.daily_mb, offer.throttle_kbps, offer.voice_minutes, offer.sms, offer.stock):
        if number is not None and not 0 <= number <= _INT32:
            raise InvalidOffer("a daily allowance, speed, voice, SMS or stock figure is negative or absurdly high")
    for cost in (offer.min_retail, offer.recommended_retail):
        if cost is not None and not 0 <= cost.amount < _MAX_AMOUNT:
            raise InvalidOffer("a minimum or recommended retail price is negative or absurdly high")


def _clean(text: str) -> str:
    return text[:MAX_PAYLOAD].encode("utf-8", "replace").decode().replace("\x00", "\\0")
