"""The catalogue's tables in the lake: what is written where, with the notes analysts read."""
# ruff: noqa: S608 - only column names of this module are put into statements

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import polars as pl

from assets.best_price import PACKAGES, UNIFIED
from assets.offer_frames import COLUMN_NOTES, REJECTS, rejected_plans
from assets.published_frames import as_listed
from assets.publishing import PricedCatalogue
from resources.warehouse.lake import Lake
from resources.warehouse.writes import LakeTable

RAW_COMMENT = "One row per plan of {slug}'s last good catalogue, normalised."
STATES_COMMENT = "One row per provider: the digest of its last good catalogue as it was downloaded."
REJECTS_COMMENT = "One row per plan and reason it could not be sold for: when it was first rejected so."
UNIFIED_COMMENT = "One row per offer of any provider's last good catalogue, with its landed cost in USD."
BEST_COMMENT = "One row per package: its best offer, prices and margin."
UNIFIED_NOTES = {
    **COLUMN_NOTES,
    "landed_micros": "what one unit costs us: quote x reference rate + order fee, in 10^-6 USD",
    "min_retail_micros_usd": "the provider's minimum selling price in 10^-6 USD",
}
BEST_NOTES = {
    **{name: COLUMN_NOTES[name] for name in ("package_id", "coverage", "data_mb", "daily_mb", "throttle_kbps")},
    "price_minor_usd": "retail price in US cents",
    "prices": "JSON: minor units per currency",
    "floor_micros": "what a sale must bring in so that it loses no money after the payment fee, 10^-6 USD",
    "rule_id": "the pricing rule that applied",
    "best_landed_micros": "landed cost of the best offer in 10^-6 USD",
    "margin_micros": "price - landed cost, before the payment fee, in 10^-6 USD",
    "second_landed_micros": "landed cost of the next offer that may win; null when there is none",
    "offer_count": "offers that could serve the package, eligible or not",
    "eligible_count": "offers that may win now",
    "on_sale": "whether any offer may win now",
}
_SAME_REJECT = ["provider", "provider_package_id", "reason"]
# What the mart adds to the columns of a package.
BEST_EXTRA: dict[str, pl.DataType] = {
    "best_provider": pl.String(),
    "second_landed_micros": pl.Int64(),
    "eligible_count": pl.Int64(),
    "margin_micros": pl.Int64(),
}


@dataclass(frozen=True, slots=True)
class CatalogueState:
    """What tells whether a download is the last good catalogue over again."""

    fingerprint: str
    quarantined: int


def raw_offers(slug: str, offers: pl.DataFrame) -> LakeTable:
    """Return a provider's last good catalogue as its table."""
    return LakeTable("raw", f"{slug}_offers", offers, RAW_COMMENT.format(slug=slug), COLUMN_NOTES)


def catalogue_states(states: Mapping[str, CatalogueState]) -> LakeTable:
    """Return the states of new last good catalogues as rows to merge."""
    rows = [(slug, state.fingerprint, state.quarantined) for slug, state in sorted(states.items())]
    schema = {"provider": pl.String, "fingerprint": pl.String, "quarantined": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return LakeTable("raw", "catalogue_states", frame, STATES_COMMENT, {}, mode="merge", key=("provider",))


def read_states(lake: Lake) -> dict[str, CatalogueState]:
    """Return the state of every provider's last good catalogue."""
    if not lake.table_exists("raw", "catalogue_states"):
        return {}
    rows = lake.read("select provider, fingerprint, quarantined from raw.catalogue_states").rows()
    return {slug: CatalogueState(fingerprint, quarantined) for slug, fingerprint, quarantined in rows}


def fingerprint(offers: pl.DataFrame) -> str:
    """Return a digest of a downloaded catalogue: equal for equal rows."""
    return hashlib.blake2b(offers.write_ipc(None).getbuffer(), digest_size=16).hexdigest()


def rejected(
    lake: Lake, rejects: Sequence[pl.DataFrame], at: datetime, unpriced: pl.DataFrame | None = None
) -> list[LakeTable]:
    """Return the rejects and offers without a price that are not recorded yet, if there are any, as rows to append."""
    frames = [pl.DataFrame(schema=REJECTS), *rejects]
    if unpriced is not None:
        frames.append(unpriced.with_columns(payload=pl.lit("")).select(list(REJECTS)))
    news = pl.concat(frames)
    if news.height and lake.table_exists("raw", "rejected_plans"):
        known = lake.read(f"select distinct {', '.join(_SAME_REJECT)} from raw.rejected_plans")
        news = news.join(known, on=_SAME_REJECT, how="anti", nulls_equal=True, maintain_order="left")
    rows = rejected_plans(news, uuid4().hex, at)
    return [LakeTable("raw", "rejected_plans", rows, REJECTS_COMMENT, {}, mode="append")] if rows.height else []


def unified_offers(unified: pl.DataFrame) -> LakeTable:
    """Return the unified offers as their table."""
    return LakeTable("staging", "unified_offers", unified, UNIFIED_COMMENT, UNIFIED_NOTES)


def read_unified(lake: Lake) -> pl.DataFrame:
    """Return the unified offers as they were written."""
    frame = lake.read(f"select {', '.join(UNIFIED)} from staging.unified_offers")
    return frame.cast(UNIFIED).sort("offer_id")  # type: ignore[arg-type]  # polars' stubs want selectors


def best_prices(catalogue: PricedCatalogue) -> LakeTable:
    """Return the best-price packages as their table."""
    frame = best_price_packages(as_listed(catalogue.packages), catalogue.candidates)
    return LakeTable("marts", "best_price_packages", frame, BEST_COMMENT, BEST_NOTES)


def best_price_packages(packages: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Return the mart: priced packages with winner, margin and the runner-up's cost."""
    eligible = candidates.filter("eligible").group_by("package_id")
    rivals = eligible.agg(
        eligible_count=pl.len().cast(pl.Int64),
        second_landed_micros=pl.col("landed_micros").bottom_k(2).sort().get(1, null_on_oob=True),
    )
    winner = candidates.select(best_offer_id="offer_id", best_provider="provider")
    joined = packages.join(rivals, on="package_id", how="left").join(winner, on="best_offer_id", how="left")
    return joined.select(
        *PACKAGES,
        "best_provider",
        "second_landed_micros",
        pl.col("eligible_count").fill_null(0),
        margin_micros=pl.col("price_minor_usd") * 10_000 - pl.col("best_landed_micros"),
    ).sort("package_id")
