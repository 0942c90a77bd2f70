"""Publishing: one transaction in which a new catalogue version becomes visible whole, or not at all.

unified offers + the store's rows (read under a lock) -> best offers and prices -> only the rows that differ are
written -> one new version. A person's choices (auto mode off) are read in the same transaction, so none is lost.
`publish` takes whole catalogues; `republish` works from the store alone, for changes of health, rules or choices.
"""

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl
from sqlalchemy import Connection, Engine

from assets.best_price import PRICED, PriceContext, described, offer_flags, price_packages, with_eligibility
from assets.published_frames import (
    STORED_OFFERS,
    STORED_PACKAGES,
    as_stored,
    changed_rows,
    offers_from_csv,
    offers_to_csv,
    packages_from_csv,
    packages_to_csv,
)
from resources.db import catalogue_store as store
from resources.db.pricing_rules import rules_in_force
from resources.db.reference_rates import newest_rates

_OFFER_CONTENT = [name for name in STORED_OFFERS if name not in {"offer_id", "auto_mode"}]
_PACKAGE_CONTENT = [name for name in STORED_PACKAGES if name not in {"package_id", "version"}]


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication did. `version` is the newest one, new or not; frames are the state after it."""

    version: int
    is_new: bool
    published_at: datetime | None
    packages: pl.DataFrame
    candidates: pl.DataFrame
    offers: pl.DataFrame
    changed_packages: int
    changed_offers: int

    @property
    def on_sale(self) -> int:
        """How many packages are on sale."""
        return self.packages.filter("on_sale").height


def price_context(conn: Connection, currencies: tuple[str, ...], now: datetime) -> PriceContext:
    """Read what decides prices besides the offers."""
    return PriceContext(
        store.provider_states(conn, now), rules_in_force(conn), newest_rates(conn).rates, tuple(currencies)
    )


def publish(
    engine: Engine, unified: pl.DataFrame, currencies: tuple[str, ...], now: datetime, *, run_id: str | None = None
) -> Published:
    """Make `unified` the catalogue on sale; a repeat with nothing changed writes nothing.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, psycopg.Error: nothing was published.
    """
    with engine.begin() as conn:
        store.lock_publishing(conn)
        context = price_context(conn, currencies, now)
        stored_offers, stored_packages = _read(conn)
        candidates = with_eligibility(_with_modes(unified, stored_offers), context)
        priced = price_packages(candidates, context)
        flagged = offer_flags(candidates, priced)
        offers = _with_withdrawn(_offer_rows(flagged), stored_offers)
        packages = _with_ended(as_stored(described(priced)), stored_packages)
        return _write(conn, offers, packages, (stored_offers, stored_packages), flagged, context, run_id)


def republish(engine: Engine, currencies: tuple[str, ...], now: datetime, *, run_id: str | None = None) -> Published:
    """Choose and price again from the store's own offers: after a change of health, stock, rules or choices.

    Landed costs, names and networks stay as the last sync left them.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, psycopg.Error: nothing was published.
    """
    with engine.begin() as conn:
        store.lock_publishing(conn)
        context = price_context(conn, currencies, now)
        stored_offers, stored_packages = _read(conn)
        placed = stored_offers.join(stored_packages.select("package_id", "destination_code"), on="package_id")
        offered = placed.filter("on_offer").with_columns(min_retail_micros_usd=pl.col("min_retail_micros"))
        candidates = with_eligibility(offered, context)
        priced = price_packages(candidates, context)
        flagged = offer_flags(candidates, priced)
        offers = _with_withdrawn(flagged.select(list(STORED_OFFERS)), stored_offers)
        fresh = stored_packages.drop(*PRICED, "on_sale", "version").join(
            priced.select("package_id", *PRICED, "on_sale"), on="package_id"
        )
        packages = _with_ended(fresh.select("package_id", *_PACKAGE_CONTENT), stored_packages)
        return _write(conn, offers, packages, (stored_offers, stored_packages), flagged, context, run_id)


def _read(conn: Connection) -> tuple[pl.DataFrame, pl.DataFrame]:
    return offers_from_csv(store.read_offers(conn)), packages_from_csv(store.read_packages(conn))


def _with_modes(unified: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Add each offer's auto mode and switch as the store has them; new offers start in auto mode."""
    modes = stored.select("offer_id", "auto_mode", "is_enabled")
    joined = unified.join(modes, on="offer_id", how="left", maintain_order="left")
    return joined.with_columns(pl.col("auto_mode").fill_null(True), pl.col("is_enabled").fill_null(False))


def _offer_rows(flagged: pl.DataFrame) -> pl.DataFrame:
    rows = flagged.with_columns(min_retail_micros=pl.col("min_retail_micros_usd"), on_offer=pl.lit(True))
    return rows.select(list(STORED_OFFERS))


def _with_withdrawn(offers: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Add the stored offers that are no longer offered, marked so."""
    gone = stored.join(offers.select("offer_id"), on="offer_id", how="anti")
    enabled = pl.col("is_enabled") & ~pl.col("auto_mode")
    marked = gone.with_columns(on_offer=pl.lit(False), is_best_price=pl.lit(False), is_enabled=enabled)
    return pl.concat([offers, marked.select(offers.columns)])


def _with_ended(packages: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Add the stored packages nobody offers any more, taken off sale."""
    ended = stored.join(packages.select("package_id"), on="package_id", how="anti")
    off_sale = ended.with_columns(on_sale=pl.lit(False), offer_count=pl.lit(0, dtype=pl.Int64))
    return pl.concat([packages, off_sale.select(packages.columns)])


def _write(
    conn: Connection,
    offers: pl.DataFrame,
    packages: pl.DataFrame,
    stored: tuple[pl.DataFrame, pl.DataFrame],
    candidates: pl.DataFrame,
    context: PriceContext,
    run_id: str | None,
) -> Published:
    new_offers = changed_rows(offers, stored[0], "offer_id", _OFFER_CONTENT)
    new_packages = changed_rows(packages, stored[1], "package_id", _PACKAGE_CONTENT)
    version, published_at = store.latest_version(conn), None
    # A stock count alone changes nothing a customer sees, so it makes no new version.
    stockless = [name for name in _OFFER_CONTENT if name != "stock"]
    material = new_packages.height + changed_rows(new_offers, stored[0], "offer_id", stockless).height
    if material:
        rates_on = date.fromisoformat(context.rates.quoted_on) if context.rates.quoted_on else None
        on_sale = packages.filter("on_sale").height
        on_offer = offers.filter("on_offer").height
        version, published_at = store.add_version(
            conn, packages=on_sale, offers=on_offer, changed=material, rates_on=rates_on, run_id=run_id
        )
    if new_offers.height:
        store.write_offers(conn, offers_to_csv(new_offers))
    if new_packages.height:
        versioned = new_packages.with_columns(version=pl.lit(version, dtype=pl.Int64))
        store.write_packages(conn, packages_to_csv(versioned))
    return Published(
        version=version,
        is_new=bool(material),
        published_at=published_at,
        packages=packages,
        candidates=candidates,
        offers=offers,
        changed_packages=new_packages.height,
        changed_offers=new_offers.height,
    )
