"""Every change of cost, price or availability of an offer, appended to `core.price_history` in the lake.

The history is the difference between its own last state and what was published, so a publication whose history was
lost (a crash in between) is caught up with by the next one, and a repeat adds nothing. A circuit that opens shows as
soon as it moves a price; where it moves none it shows with the next change of any offer.
"""

from datetime import datetime

import polars as pl

from assets.publishing import Published
from resources.warehouse.lake import Lake
from resources.warehouse.writes import LakeTable

HISTORY: dict[str, pl.DataType] = {
    "offer_id": pl.String(),
    "provider": pl.String(),
    "package_id": pl.String(),
    "cost_micros": pl.Int64(),
    "cost_currency": pl.String(),
    "landed_micros": pl.Int64(),
    "price_minor_usd": pl.Int64(),
    "is_best_price": pl.Boolean(),
    "is_available": pl.Boolean(),
    "changed_at": pl.Datetime("us", "UTC"),
    "version": pl.Int64(),
}
HISTORY_COMMENT = "One row per change of an offer's cost, price, rank or availability; the newest row is its state."
HISTORY_NOTES = {
    "cost_micros": "wholesale cost, 10^-6 of cost_currency",
    "landed_micros": "landed cost in 10^-6 USD",
    "price_minor_usd": "its package's retail price in US cents while this offer is the best one; null otherwise",
    "is_available": "whether it could be bought: offered, in stock, healthy, not quarantined, not switched off",
    "changed_at": "when it was published; for a stock count, which makes no new version, when it was read",
    "version": "the catalogue version",
}
_STATE = [name for name in HISTORY if name not in {"offer_id", "provider", "changed_at", "version"}]


def history_rows(lake: Lake, published: Published, now: datetime) -> list[LakeTable]:
    """Return what changed since the last recorded version as rows to append; a repeat has none."""
    last = _last_state(lake, published)
    if last is None:
        return []
    joined = current_state(published).join(last, on="offer_id", how="left", suffix="__old")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}__old")) for name in _STATE)
    changed = joined.filter(pl.col("version").is_null() | differs)
    if changed.is_empty():
        return []
    at = pl.lit(published.published_at or now).cast(HISTORY["changed_at"])
    rows = changed.with_columns(changed_at=at, version=pl.lit(published.version, dtype=pl.Int64)).select(list(HISTORY))
    return [LakeTable("core", "price_history", rows, HISTORY_COMMENT, HISTORY_NOTES, mode="append")]


def current_state(published: Published) -> pl.DataFrame:
    """Return every offer's state as published, in the history's columns."""
    available = published.candidates.select("offer_id", is_available="eligible")
    prices = published.packages.select("package_id", best_price="price_minor_usd")
    joined = published.offers.join(available, on="offer_id", how="left").join(prices, on="package_id", how="left")
    price = pl.when("is_best_price").then(pl.col("best_price"))
    return joined.with_columns(price_minor_usd=price, is_available=pl.col("is_available").fill_null(False)).select(
        "offer_id", "provider", *_STATE
    )


def _last_state(lake: Lake, published: Published) -> pl.DataFrame | None:
    """Return every offer's last row; None when nothing can have changed since."""
    if not lake.table_exists("core", "price_history"):
        columns = {name: HISTORY[name] for name in ("offer_id", *_STATE, "version")}
        return pl.DataFrame(schema=columns)
    newest = lake.read("select coalesce(max(version), 0) as version from core.price_history").item()
    if not published.is_new and not published.changed_offers and newest >= published.version:
        return None
    columns_read = ", ".join(("offer_id", *_STATE, "version"))
    return lake.read(
        f"select {columns_read} from core.price_history"  # noqa: S608 - constants
        " qualify row_number() over (partition by offer_id order by version desc, changed_at desc) = 1"
    )
