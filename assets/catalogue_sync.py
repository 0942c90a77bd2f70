"""The catalogue sync, one function for the command line, Dagster and the benchmark.

providers (at once, in threads) -> judged against the last good catalogue -> `raw.<slug>_offers` replaced, or the
provider held -> unified offers -> one publication -> marts and price history. A provider that fails or is held keeps
its last good catalogue on sale and never stops the others.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import polars as pl

from assets.best_price import PriceContext, unify
from assets.catalogue_holds import Finding, judge, unchanged, unread
from assets.catalogue_tables import (
    CatalogueState,
    best_prices,
    catalogue_states,
    fingerprint,
    raw_offers,
    read_states,
    rejected,
    unified_offers,
)
from assets.downloads import Download, Progress, bulk_parsing, download, last_good
from assets.price_history import history_rows
from assets.publishing import Published, price_context, publish
from assets.reference_rates import RatesUpdate, ensure_rates
from esim.errors import NotFound
from esim.pricing import Rates
from resources.catalogue_desk import CatalogueDesk
from resources.db import catalogue_store as store
from resources.db.stock_levels import watch_stock
from resources.warehouse.lake import Lake
from resources.warehouse.writes import LakeTable, write_tables

_PEERS = {"package_id": pl.String(), "provider": pl.String(), "landed_micros": pl.Int64()}


@dataclass(frozen=True, slots=True)
class Received:
    """One provider's part of a sync: what came, how it was judged, and the catalogue that is good now."""

    download: Download
    findings: tuple[Finding, ...]
    held_reason: str
    offers: pl.DataFrame | None
    state: CatalogueState | None
    changed: bool
    moves: pl.DataFrame

    @property
    def provider(self) -> str:
        """The provider's slug."""
        return self.download.provider

    @property
    def quarantined(self) -> int:
        """How many offers of its good catalogue are quarantined."""
        return 0 if self.state is None else self.state.quarantined


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did."""

    received: tuple[Received, ...]
    published: Published
    unpriced: int
    rates: RatesUpdate

    @property
    def held(self) -> dict[str, str]:
        """Why providers are held, by slug."""
        return {each.provider: each.held_reason for each in self.received if each.held_reason}


@bulk_parsing()
def sync_catalogue(
    desk: CatalogueDesk,
    *,
    providers: Collection[str] | None = None,
    accept: Collection[str] = (),
    progress: Progress | None = None,
    run_id: str | None = None,
) -> SyncReport:
    """Sync the named providers (all when None), publish what is good and keep the history.

    `accept` names providers whose moves a person has checked: they are not held and their offers not quarantined.

    Raises:
        NotFound: there is no such provider.
    """
    now = desk.clock()
    rates = ensure_rates(desk.engine, desk.rates, now)
    received = receive(desk, rates.rates, providers=providers, accept=accept, progress=progress)
    unified, unpriced = unify_good(desk, received, now)
    changed = any(each.changed for each in received)
    first = raw_tables(desk.lake, received, now, unpriced) + ([unified_offers(unified)] if changed else [])
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="lake") as lake_writer:
        writing = lake_writer.submit(write_tables, desk.lake, first)
        published = publish(desk.engine, unified, desk.currencies, now, run_id=run_id)
        writing.result()
    tell_low_stock(desk, now)
    last = what_follows(desk.lake, published, now)
    if last and not changed:  # landed costs follow the rates, whatever the catalogues did
        last.append(unified_offers(unified))
    write_tables(desk.lake, last)
    return SyncReport(received, published, unpriced.height, rates)


def what_follows(lake: Lake, published: Published, now: datetime) -> list[LakeTable]:
    """Return the lake tables to bring up to date with a publication: its history, and the best prices.

    History that has to be caught up with means that an earlier publication was not followed: the prices are due too.
    """
    tables = history_rows(lake, published, now)
    if tables or published.is_new or not lake.table_exists("marts", "best_price_packages"):
        tables.append(best_prices(published))
    return tables


def receive(
    desk: CatalogueDesk,
    rates: Rates,
    *,
    providers: Collection[str] | None = None,
    accept: Collection[str] = (),
    progress: Progress | None = None,
) -> tuple[Received, ...]:
    """Download and judge catalogues at once and note which providers are held; `raw_tables` is what to write of them.

    Raises:
        NotFound: there is no such provider.
    """
    slugs = tuple(desk.providers) if providers is None else tuple(providers)
    if unknown := sorted({*slugs, *accept} - set(desk.providers)):
        known = ", ".join(desk.providers)
        raise NotFound(f"there is no provider {', '.join(unknown)}; the providers are {known}")
    now, costs, states = desk.clock(), _costs(desk), read_states(desk.lake)

    def one(slug: str) -> Received:
        fetched = download(desk.providers[slug], slug, progress)
        received = _judged(desk, fetched, costs, rates, states, accept=slug in accept)
        _note(desk, received, now)
        return received

    with bulk_parsing(), ThreadPoolExecutor(max(1, len(slugs)), thread_name_prefix="catalogue") as workers:
        return tuple(workers.map(one, slugs))


def raw_tables(
    lake: Lake, received: Sequence[Received], now: datetime, unpriced: pl.DataFrame | None = None
) -> list[LakeTable]:
    """Return the lake tables a sync replaces (good catalogues that differ from the last good ones) and the rejects."""
    good = [raw_offers(each.provider, each.offers) for each in received if each.changed and each.offers is not None]
    if states := {each.provider: each.state for each in received if each.changed and each.state is not None}:
        good.append(catalogue_states(states))
    return good + rejected(lake, [each.download.rejects for each in received], now, unpriced)


def unify_good(desk: CatalogueDesk, received: Sequence[Received], now: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return all providers' good offers with landed costs, and those that cannot be priced."""
    known = {each.provider: each.offers for each in received}
    frames = [known[slug] if slug in known else last_good(desk.lake, slug) for slug in desk.providers]
    return unify([frame for frame in frames if frame is not None], _context(desk, now))


def _judged(
    desk: CatalogueDesk,
    fetched: Download,
    costs: pl.DataFrame,
    rates: Rates,
    states: Mapping[str, CatalogueState],
    *,
    accept: bool,
) -> Received:
    """Judge a download against the provider's last good catalogue and the other providers' costs."""
    slug = fetched.provider
    if fetched.failure:
        before = last_good(desk.lake, slug)
        return Received(
            fetched, unread(fetched.failure), fetched.failure, before, states.get(slug), False, pl.DataFrame()
        )
    state = CatalogueState(fingerprint(fetched.offers), 0)
    if states.get(slug) == state:
        same = unchanged(fetched.offers)
        return Received(fetched, same.findings, "", same.offers, state, False, same.moves)
    before = last_good(desk.lake, slug)
    others = costs.filter(pl.col("provider") != slug).group_by("package_id")
    peers = others.agg(peer=pl.col("landed_micros").median().cast(pl.Int64))
    # A plan listed again is a reject too, but says nothing against the catalogue.
    lost = fetched.rejects.join(fetched.offers, on="provider_package_id", how="anti").height
    verdict = judge(fetched.offers, lost, before, peers, rates, accept=accept)
    if verdict.held_reason:
        return Received(fetched, verdict.findings, verdict.held_reason, before, states.get(slug), False, verdict.moves)
    state = CatalogueState(state.fingerprint, verdict.quarantined)
    changed = before is None or state != states.get(slug) or not verdict.offers.equals(before)
    return Received(fetched, verdict.findings, "", verdict.offers, state, changed, verdict.moves)


def _note(desk: CatalogueDesk, received: Received, now: datetime) -> None:
    with desk.engine.begin() as conn:
        if received.held_reason:
            store.hold_provider(conn, received.provider, received.held_reason, now)
        else:
            store.release_provider(conn, received.provider, now)


def tell_low_stock(desk: CatalogueDesk, now: datetime) -> None:
    """Tell operations which offers are running out, once for each until it is in stock again."""
    with desk.engine.begin() as conn:
        watch_stock(conn, now)


def _costs(desk: CatalogueDesk) -> pl.DataFrame:
    with desk.engine.connect() as conn:
        return pl.read_csv(BytesIO(store.read_costs(conn)), schema=_PEERS)


def _context(desk: CatalogueDesk, now: datetime) -> PriceContext:
    with desk.engine.connect() as conn:
        return price_context(conn, desk.currencies, now)
