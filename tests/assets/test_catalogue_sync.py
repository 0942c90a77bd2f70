"""The whole sync on a real database and lake: holds, failures, publication, history, a person's choices."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import psycopg
import pytest
from sqlalchemy import Engine, text

from assets.catalogue_sync import SyncReport, sync_catalogue
from assets.publishing import republish
from esim.catalogue import RejectedPlan
from esim.errors import CatalogueHeld, NotFound, ProviderUnavailable
from esim.geography import Coverage
from esim.money import Cost
from resources.db.databases import Databases
from resources.warehouse.lake import Lake
from resources.warehouse.writes import LakeTable, write_tables
from tests.assets.catalogue_builders import SLUGS, offer, plans, rates_source
from tests.assets.conftest import Shelf


def rows(engine: Engine, query: str) -> list[Mapping[str, object]]:
    with engine.connect() as conn:
        return [dict(row) for row in conn.execute(text(query)).mappings()]


def package(engine: Engine, package_id: str = "jp-5gb-30d") -> Mapping[str, object]:
    return rows(engine, f"select * from packages where package_id = '{package_id}'")[0]


def stocked(shelf: Shelf, count: int = 30) -> None:
    """Give every provider plans; esim_go is the cheapest, airalo the dearest."""
    factors = {"airalo": "1.5", "esim_access": "1.2", "esim_go": "1", "mobimatter": "1.1", "esim_card": "1.3"}
    for slug, factor in factors.items():
        shelf.providers[slug].offers = plans(slug, count, factor=factor)


def test_five_catalogues_become_one_published_version(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    report = sync_catalogue(shelf.desk)
    assert (report.published.version, report.published.is_new, report.published.on_sale) == (1, True, 30)
    version = rows(engine, "select * from catalogue_versions")[0]
    assert (version["packages"], version["offers"], version["rates_on"]) == (30, 150, date(2026, 3, 2))
    winners = rows(engine, "select provider, count(*) as n from offers where is_best_price group by 1")
    assert winners == [{"provider": "esim_go", "n": 30}]
    cheapest = rows(engine, "select * from packages order by price_minor_usd, package_id limit 1")[0]
    assert cheapest["prices"] == {"USD": 399, "EUR": 399, "GBP": 399}
    assert (cheapest["best_landed_micros"], cheapest["floor_micros"]) == (2_000_000, 2_368_693)


def test_a_sync_with_nothing_changed_writes_nothing(shelf: Shelf, engine: Engine, lake: Lake) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    before = rows(engine, "select max(changed_xid::text::bigint) as xid, max(updated_at) as at from packages")
    snapshots = lake.read("select max(snapshot_id) from ducklake_snapshots('lake')").item()
    shelf.later()
    report = sync_catalogue(shelf.desk)
    assert (report.published.version, report.published.is_new) == (1, False)
    assert (report.published.changed_packages, report.published.changed_offers) == (0, 0)
    assert rows(engine, "select max(changed_xid::text::bigint) as xid, max(updated_at) as at from packages") == before
    assert lake.read("select max(snapshot_id) from ducklake_snapshots('lake')").item() == snapshots


def test_only_what_changed_is_written(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    shelf.providers["esim_go"].offers[0] = replace(shelf.providers["esim_go"].offers[0], cost=Cost.parse("2.10", "USD"))
    report = sync_catalogue(shelf.desk)
    assert (report.published.version, report.published.changed_packages, report.published.changed_offers) == (2, 1, 1)
    assert rows(engine, "select count(*) as n from packages where version = 2") == [{"n": 1}]


def test_a_new_version_is_announced_once(shelf: Shelf, databases: Databases) -> None:
    stocked(shelf)
    with psycopg.connect(databases.operational, autocommit=True) as listener:
        listener.execute("listen catalogue")
        sync_catalogue(shelf.desk)
        sync_catalogue(shelf.desk)
        assert len(list(listener.notifies(timeout=1))) == 1


def test_a_provider_that_is_down_keeps_its_last_good_catalogue_on_sale(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    shelf.providers["esim_go"].down = ProviderUnavailable("esim_go catalogue: HTTP 503")
    shelf.providers["airalo"].offers.append(offer("airalo", "4.5"))
    shelf.later()
    report = sync_catalogue(shelf.desk)
    assert report.held == {"esim_go": "its catalogue could not be read: esim_go catalogue: HTTP 503"}
    assert package(engine)["best_offer_id"] == "airalo:1"
    assert rows(engine, "select count(*) as n from offers where is_best_price and provider = 'esim_go'") == [{"n": 30}]
    state = rows(engine, "select held_reason, held_at from providers where slug = 'esim_go'")[0]
    assert (state["held_reason"], state["held_at"]) == (report.held["esim_go"], shelf.now)


def test_operations_hear_of_a_hold_once_a_day(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    shelf.providers["esim_go"].down = ProviderUnavailable("HTTP 503")
    for _ in range(3):
        sync_catalogue(shelf.desk)
        shelf.later(1)
    notes = rows(engine, "select channel, kind, payload from outbox")
    assert [(note["channel"], note["kind"]) for note in notes] == [("slack", "catalogue_held")]
    assert "esim_go is held back" in str(notes[0]["payload"])


def test_an_adapter_that_breaks_on_a_payload_holds_its_provider_only(shelf: Shelf) -> None:
    stocked(shelf)
    surprises = {"airalo": KeyError, "esim_access": RecursionError, "mobimatter": MemoryError, "esim_card": OSError}
    for slug, surprise in surprises.items():
        shelf.providers[slug].breaks_with = surprise
    report = sync_catalogue(shelf.desk)
    assert set(report.held) == set(surprises)
    assert report.held["mobimatter"] == "its catalogue could not be read: unexpected MemoryError after page 1"
    assert report.published.on_sale == 30


def test_pages_that_never_end_hold_the_provider(shelf: Shelf) -> None:
    stocked(shelf)
    shelf.providers["esim_card"].endless = True
    report = sync_catalogue(shelf.desk)
    assert "does not end" in report.held["esim_card"]
    assert report.published.on_sale == 30


def test_a_shrunk_catalogue_is_held_and_the_others_go_on(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    shelf.providers["esim_go"].offers = plans("esim_go", 20)
    report = sync_catalogue(shelf.desk)
    assert report.held == {"esim_go": "the catalogue shrank by over 20 %: 20 plans after 30"}
    assert rows(engine, "select count(*) as n from offers where provider = 'esim_go' and on_offer") == [{"n": 30}]
    shelf.providers["esim_go"].offers = plans("esim_go", 29)
    report = sync_catalogue(shelf.desk)
    assert report.held == {}
    assert rows(engine, "select held_reason, held_at from providers where slug = 'esim_go'") == [
        {"held_reason": None, "held_at": None}
    ]


def test_prices_times_ten_thousand_are_rejected_and_held(shelf: Shelf, lake: Lake) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    shelf.providers["esim_access"].offers = plans("esim_access", 30, factor="10000")
    report = sync_catalogue(shelf.desk)
    assert report.held == {"esim_access": "none of 30 plans can be sold"}
    reasons = lake.read("select distinct provider, split_part(reason, ' ', 1) as word from raw.rejected_plans")
    assert reasons.rows() == [("esim_access", "cost")]


def test_negative_prices_are_rejected_one_by_one(shelf: Shelf, lake: Lake) -> None:
    stocked(shelf)
    shelf.providers["airalo"].offers[3] = replace(shelf.providers["airalo"].offers[3], cost=Cost.parse("-4.50", "USD"))
    report = sync_catalogue(shelf.desk)
    assert report.held == {}
    rejects = lake.read("select provider_package_id, reason from raw.rejected_plans").rows()
    assert rejects == [("p3", "cost -4.5 USD is zero, negative or absurdly high")]


def test_what_an_adapter_rejects_is_kept_with_its_reason(shelf: Shelf, lake: Lake) -> None:
    stocked(shelf)
    reject = RejectedPlan("airalo", "odd\x00plan", "no size\ud800", '{"id": 1}')
    shelf.providers["airalo"].rejected.append(reject)
    report = sync_catalogue(shelf.desk)
    assert report.received[0].download.rejects.height == 1
    kept = lake.read("select provider, provider_package_id, reason, payload, synced_at from raw.rejected_plans").row(0)
    assert kept == ("airalo", "odd\\0plan", "no size?", '{"id": 1}', shelf.now)


def test_plans_nobody_can_store_or_sell_are_rejects(shelf: Shelf) -> None:
    stocked(shelf)
    odd: list[dict[str, Any]] = [
        {"name": "Japan\x00 5 GB"},
        {"name": "Japan \ud800"},
        {"name": "x" * 10_000_000},
        {"networks": ("Docomo\x1f",)},
        {"stock": -1},
        {"stock": 2**40},
        {"voice_minutes": 2**31},
        {"min_retail": Cost.parse("1e30", "USD")},
        {"order_hints": {"k": "\x00"}},
        {"data_mb": 5},
        {"data_mb": 2_000_000},
        {"validity_days": 0},
        {"coverage": Coverage((), ("TRNC",))},
    ]
    shelf.providers["airalo"].offers += [offer("airalo", "4.5", number=str(n), **odd[n]) for n in range(len(odd))]
    report = sync_catalogue(shelf.desk)
    assert report.received[0].download.rejects.get_column("provider_package_id").to_list() == [
        str(n) for n in range(len(odd))
    ]
    assert (report.held, report.published.on_sale) == ({}, 30)


def test_awkward_texts_survive_the_way_into_the_store(shelf: Shelf, engine: Engine) -> None:
    nasty = 'a "quoted", {braced}\nname\\with\rcontrols ü 日本'
    plan = offer(
        "airalo", "4.5", name=nasty, networks=("NTT, Docomo", 'K"D\\DI', "{x}", "null"), order_hints={"k": 'v"\\'}
    )
    shelf.providers["airalo"].offers = [plan]
    sync_catalogue(shelf.desk, providers=["airalo"])
    stored = rows(engine, "select name, order_hints from offers")[0]
    assert (stored["name"], stored["order_hints"]) == (nasty, {"k": 'v"\\'})
    assert package(engine)["networks"] == ["NTT, Docomo", 'K"D\\DI', "{x}", "null"]
    assert sync_catalogue(shelf.desk, providers=["airalo"]).published.is_new is False


def test_a_plan_listed_twice_counts_once(shelf: Shelf) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5"), offer("airalo", "4.5"), offer("airalo", "4.6")]
    report = sync_catalogue(shelf.desk, providers=["airalo"])
    got = report.received[0].download
    assert (got.offers.height, got.repeats, got.rejects.height) == (1, 1, 1)


def test_one_provider_may_be_synced_alone(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    for slug in SLUGS:
        shelf.providers[slug].offers.append(offer(slug, "4.5"))
    sync_catalogue(shelf.desk, providers=["mobimatter"])
    assert rows(engine, "select offer_id from offers where package_id = 'jp-5gb-30d'") == [{"offer_id": "mobimatter:1"}]


def test_an_unknown_provider_is_named(shelf: Shelf) -> None:
    with pytest.raises(NotFound, match="there is no provider airola; the providers are airalo, esim_access"):
        sync_catalogue(shelf.desk, providers=["airola"])


def test_an_accepted_catalogue_is_published(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    shelf.providers["esim_go"].offers = plans("esim_go", 10, factor="2")
    assert set(sync_catalogue(shelf.desk).held) == {"esim_go"}
    assert sync_catalogue(shelf.desk, accept=["esim_go"]).held == {}
    assert rows(engine, "select count(*) as n from offers where provider = 'esim_go' and on_offer") == [{"n": 10}]


def test_a_quarantined_offer_leaves_the_sale_with_its_reason(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    for slug, cost in (("airalo", "9.0"), ("esim_go", "2.0")):
        shelf.providers[slug].offers.append(offer(slug, cost))
    sync_catalogue(shelf.desk)
    shelf.providers["esim_go"].offers[-1] = offer("esim_go", "34.0")
    for _ in range(2):  # the second time the download is the same
        assert sync_catalogue(shelf.desk).received[2].quarantined == 1
    slipped = rows(engine, "select excluded_reason, is_enabled from offers where offer_id = 'esim_go:1'")[0]
    assert slipped == {"excluded_reason": "cost jumped from USD 2.00 to USD 34.00", "is_enabled": False}
    assert package(engine)["best_offer_id"] == "airalo:1"


def test_packages_nobody_offers_any_more_go_off_sale(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    shelf.providers["airalo"].offers.append(offer("airalo", "4.5"))
    sync_catalogue(shelf.desk)
    paid = package(engine)["price_minor_usd"]
    shelf.providers["airalo"].offers.pop()
    sync_catalogue(shelf.desk)
    gone = package(engine)
    assert (gone["on_sale"], gone["offer_count"], gone["price_minor_usd"], gone["version"]) == (False, 0, paid, 2)
    assert rows(engine, "select on_offer, is_best_price, is_enabled from offers where offer_id = 'airalo:1'") == [
        {"on_offer": False, "is_best_price": False, "is_enabled": False}
    ]


def test_a_rule_that_sells_below_the_floor_publishes_nothing(shelf: Shelf, engine: Engine) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5")]
    with engine.begin() as conn:
        conn.execute(text("update pricing_rules set markup_bp = -9000, min_margin_micros = -4000000"))
        conn.execute(text("update pricing_rules set payment_fee_bp = 0, payment_fee_micros = 0"))
    with pytest.raises(CatalogueHeld, match=r"1 packages would be sold below their cost floor \(jp-5gb-30d, rule 1\)"):
        sync_catalogue(shelf.desk, providers=["airalo"])
    assert rows(engine, "select 1 from catalogue_versions") == []


def test_an_offer_out_of_stock_is_not_sold(shelf: Shelf, engine: Engine) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5", stock=0)]
    sync_catalogue(shelf.desk, providers=["airalo"])
    assert package(engine)["on_sale"] is False
    shelf.providers["airalo"].offers = [offer("airalo", "4.5", stock=7)]
    sync_catalogue(shelf.desk, providers=["airalo"])
    assert package(engine)["on_sale"] is True


def test_a_stock_count_alone_makes_no_new_version(shelf: Shelf, engine: Engine) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5", stock=9)]
    sync_catalogue(shelf.desk, providers=["airalo"])
    shelf.providers["airalo"].offers = [offer("airalo", "4.5", stock=8)]
    assert sync_catalogue(shelf.desk, providers=["airalo"]).published.is_new is False
    assert rows(engine, "select stock from offers") == [{"stock": 8}]


def test_operations_hear_once_an_episode_that_an_offer_runs_out(shelf: Shelf, engine: Engine) -> None:
    def sync(*stocks: int) -> list[object]:
        shelf.providers["airalo"].offers = [offer("airalo", "4.5", stock=stocks[0]), offer("airalo", "5", number="2")]
        for stock in stocks:
            shelf.providers["airalo"].offers[0] = offer("airalo", "4.5", stock=stock)
            sync_catalogue(shelf.desk, providers=["airalo"])
        told = rows(engine, "select payload ->> 'text' as text from outbox where kind = 'low_stock' order by outbox_id")
        return [row["text"] for row in told]

    heading = "airalo: fewer than 10 left of offers on sale: airalo:1"
    assert sync(9, 9, 3) == [f"{heading} (9 left)."]
    assert len(sync(0, 4)) == 1  # sold out and a little again: the same episode
    assert sync(200, 0)[1:] == [f"{heading} (sold out, off sale)."]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_persons_choice_outlives_every_sync(shelf: Shelf, engine: Engine, enabled: bool) -> None:
    for slug, cost in (("airalo", "4.5"), ("esim_go", "4.0")):
        shelf.providers[slug].offers = [offer(slug, cost)]
    sync_catalogue(shelf.desk, providers=["airalo", "esim_go"])
    chosen = "airalo:1" if enabled else "esim_go:1"
    with engine.begin() as conn:
        conn.execute(text(f"update offers set auto_mode = false, is_enabled = {enabled} where offer_id = '{chosen}'"))
    for _ in range(2):
        shelf.providers["airalo"].offers = [offer("airalo", "4.4")]
        sync_catalogue(shelf.desk, providers=["airalo", "esim_go"])
        kept = rows(engine, f"select auto_mode, is_enabled from offers where offer_id = '{chosen}'")
        assert kept == [{"auto_mode": False, "is_enabled": enabled}]
    assert package(engine)["best_offer_id"] == ("esim_go:1" if enabled else "airalo:1")


def test_a_failing_providers_best_prices_move_at_once_and_back(shelf: Shelf, engine: Engine) -> None:
    for slug, cost in (("airalo", "4.5"), ("esim_go", "4.0")):
        shelf.providers[slug].offers = [offer(slug, cost)]
    full = sync_catalogue(shelf.desk, providers=["airalo", "esim_go"])
    with engine.begin() as conn:
        until = {"until": shelf.now.replace(hour=13)}
        conn.execute(text("update providers set open_until = :until where slug = 'esim_go'"), until)
    moved = republish(engine, shelf.desk.currencies, shelf.now)
    assert (moved.is_new, package(engine)["best_offer_id"]) == (True, "airalo:1")
    shelf.later(2)
    republish(engine, shelf.desk.currencies, shelf.now)
    back = package(engine)
    assert (back["best_offer_id"], back["price_minor_usd"]) == (
        "esim_go:1",
        full.published.packages.item(0, "price_minor_usd"),
    )
    assert republish(engine, shelf.desk.currencies, shelf.now).is_new is False


def test_a_package_of_a_failing_provider_comes_back_with_it(shelf: Shelf, engine: Engine) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5")]
    sync_catalogue(shelf.desk, providers=["airalo"])
    for enabled in (False, True):
        with engine.begin() as conn:
            conn.execute(text(f"update providers set enabled = {enabled} where slug = 'airalo'"))
        republish(engine, shelf.desk.currencies, shelf.now)
        assert package(engine)["on_sale"] is enabled


def test_republishing_after_a_sync_agrees_with_it(shelf: Shelf) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    assert republish(shelf.desk.engine, shelf.desk.currencies, shelf.now).is_new is False


def history(lake: Lake, offer_id: str) -> list[tuple[object, ...]]:
    columns = "version, landed_micros, price_minor_usd, is_best_price, is_available"
    return lake.read(f"select {columns} from core.price_history where offer_id = '{offer_id}' order by version").rows()


def test_every_change_of_cost_or_price_is_kept_as_history(shelf: Shelf, lake: Lake) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5")]
    shelf.providers["esim_go"].offers = [offer("esim_go", "4.0")]
    for cost in ("4.0", "4.0", "5.0"):
        shelf.providers["esim_go"].offers = [offer("esim_go", cost)]
        sync_catalogue(shelf.desk, providers=["airalo", "esim_go"])
    assert history(lake, "airalo:1") == [(1, 4_500_000, None, False, True), (2, 4_500_000, 699, True, True)]
    assert history(lake, "esim_go:1") == [(1, 4_000_000, 599, True, True), (2, 5_000_000, None, False, True)]


def test_history_lost_in_a_crash_is_caught_up_with(shelf: Shelf, lake: Lake) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5")]
    sync_catalogue(shelf.desk, providers=["airalo"])
    lake.transact(lambda connection: connection.execute("delete from core.price_history").fetchall())
    sync_catalogue(shelf.desk, providers=["airalo"])
    assert history(lake, "airalo:1") == [(1, 4_500_000, 699, True, True)]


def test_an_offer_that_runs_out_without_moving_a_price_is_kept_as_history(shelf: Shelf, lake: Lake) -> None:
    shelf.now = datetime.now(UTC)  # the time of a version is the database's
    shelf.providers["esim_go"].offers = [offer("esim_go", "4.0")]
    for stock in (7, 0, 7):
        shelf.providers["airalo"].offers = [offer("airalo", "4.5", stock=stock)]
        assert sync_catalogue(shelf.desk, providers=["airalo", "esim_go"]).published.version == 1
        shelf.later()
    kept = lake.read("select is_available from core.price_history where offer_id = 'airalo:1' order by changed_at")
    assert kept.get_column("is_available").to_list() == [True, False, True]
    assert lake.read("select eligible_count from marts.best_price_packages").item() == 2


def test_marts_lost_in_a_crash_are_caught_up_with(shelf: Shelf, lake: Lake) -> None:
    """A sync that ends right after publishing has written neither history nor best prices."""
    shelf.providers["airalo"].offers = [offer("airalo", "4.5")]
    sync_catalogue(shelf.desk, providers=["airalo"])
    stale = lake.read("from marts.best_price_packages").with_columns(best_landed_micros=pl.lit(1, dtype=pl.Int64))
    unified = lake.read("from staging.unified_offers").with_columns(landed_micros=pl.lit(1, dtype=pl.Int64))

    write_tables(
        lake,
        [
            LakeTable("marts", "best_price_packages", stale, "", {}),
            LakeTable("staging", "unified_offers", unified, "", {}),
        ],
    )
    lake.transact(lambda connection: connection.execute("delete from core.price_history").fetchall())
    sync_catalogue(shelf.desk, providers=["airalo"])
    assert lake.read("select best_landed_micros from marts.best_price_packages").item() == 4_500_000
    assert lake.read("select landed_micros from staging.unified_offers").item() == 4_500_000


def test_a_reject_is_kept_once_per_reason(shelf: Shelf, lake: Lake) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5"), offer("airalo", Cost.parse("5", "CHF"), number="2")]
    for reason in ("no size", "no size", "no term"):
        shelf.providers["airalo"].rejected = [RejectedPlan("airalo", "odd", reason, "{}")]
        sync_catalogue(shelf.desk, providers=["airalo"])
        shelf.later()
    kept = lake.read("select provider_package_id, reason from raw.rejected_plans order by synced_at, reason").rows()
    assert kept == [("2", "no reference rate for its cost in CHF"), ("odd", "no size"), ("odd", "no term")]


def test_quotes_in_other_currencies_land_at_the_days_rate(shelf: Shelf, engine: Engine) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", Cost.parse("4.5", "EUR"))]
    sync_catalogue(shelf.desk, providers=["airalo"])
    assert package(engine)["best_landed_micros"] == 4_889_250


def test_without_a_rate_an_offer_is_a_reject_with_its_reason(shelf: Shelf, lake: Lake) -> None:
    shelf.providers["airalo"].offers = [offer("airalo", "4.5"), offer("airalo", Cost.parse("5", "CHF"), number="2")]
    report = sync_catalogue(shelf.desk, providers=["airalo"])
    assert report.unpriced == 1
    reasons = lake.read("select provider_package_id, reason from raw.rejected_plans").rows()
    assert reasons == [("2", "no reference rate for its cost in CHF")]


def test_unreachable_rates_do_not_stop_the_sync(shelf: Shelf, engine: Engine) -> None:
    stocked(shelf)
    desk = replace(shelf.desk, rates=rates_source(status=503))
    report = sync_catalogue(desk)
    assert "no reference rates" in report.rates.failure
    assert rows(engine, "select distinct prices ? 'EUR' as eur from packages") == [{"eur": False}]


def test_the_mart_shows_margin_and_runner_up(shelf: Shelf, lake: Lake) -> None:
    for slug, cost in (("airalo", "4.5"), ("esim_go", "4.0"), ("mobimatter", "9.0")):
        shelf.providers[slug].offers = [offer(slug, cost)]
    sync_catalogue(shelf.desk, providers=["airalo", "esim_go", "mobimatter"])
    row = lake.read("select * from marts.best_price_packages").row(0, named=True)
    assert (row["best_provider"], row["second_landed_micros"], row["eligible_count"]) == ("esim_go", 4_500_000, 3)
    assert row["margin_micros"] == 5_990_000 - 4_000_000
    assert (row["coverage"], row["networks"]) == (["JP"], [])


def test_two_syncs_at_once_leave_one_whole_catalogue(shelf: Shelf, engine: Engine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    stocked(shelf)
    with ThreadPoolExecutor(2) as pool:
        reports: list[SyncReport] = [*pool.map(lambda _: sync_catalogue(shelf.desk), range(2))]
    assert sorted(report.published.is_new for report in reports) == [False, True]
    assert rows(engine, "select count(*) as n, count(distinct version) as v from packages") == [{"n": 30, "v": 1}]


def test_progress_is_told_page_by_page(shelf: Shelf) -> None:
    shelf.providers["airalo"].offers = plans("airalo", 120)
    told: list[tuple[str, int, int | None, int]] = []
    sync_catalogue(shelf.desk, providers=["airalo"], progress=lambda *step: told.append(step))
    assert told == [("airalo", 1, 3, 50), ("airalo", 2, 3, 100), ("airalo", 3, 3, 120)]


def test_the_lakes_tables_say_what_they_are(shelf: Shelf, lake: Lake) -> None:
    stocked(shelf)
    sync_catalogue(shelf.desk)
    notes = dict(lake.read("select table_name, comment from duckdb_tables() where database_name = 'lake'").rows())
    assert notes["airalo_offers"] == "One row per plan of airalo's last good catalogue, normalised."
    assert isinstance(lake.read("from raw.airalo_offers"), pl.DataFrame)
