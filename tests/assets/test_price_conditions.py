"""What is on sale follows health, rules and rates within a tick, with one republication per change."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import polars as pl
import pytest
from sqlalchemy import text

from assets.best_price import with_eligibility
from assets.catalogue_sync import sync_catalogue
from assets.catalogue_tables import read_unified
from assets.publishing import price_context
from esim.pricing import PricingRule, Rates, RuleScope
from pipelines.catalogue_jobs import republish_catalogue
from pipelines.runs import LastRun
from pipelines.sensors.price_conditions import Cursor, Look, decide, price_conditions_sensor
from resources.db.outages import rest_offer
from resources.db.pricing_rules import add_rule
from resources.db.reference_rates import save_rates
from resources.lake import LakeResource
from resources.order_operations import OrderTools
from resources.settings import Settings
from resources.warehouse.lake import Lake
from tests.assets.catalogue_builders import offer
from tests.assets.conftest import Shelf, ShelfClients

SEEN = Cursor(1, "c", 3)
FAILED = LastRun(active=False, succeeded=False, tags={}, seconds_ago=301)


@pytest.mark.parametrize(
    ("before", "now", "last", "reason"),
    [
        (None, Look("c", 0, False), None, "version 0"),
        (SEEN, Look("d", 3, True), replace(FAILED, active=True), "a run is going"),
        (SEEN, Look("d", 3, True), replace(FAILED, seconds_ago=19), "failed 19 s ago; next try after 20 s"),
        (SEEN, Look("d", 3, True), replace(FAILED, seconds_ago=20), ""),
        (SEEN, Look("c", 3, False), None, "since version 3"),
        (SEEN, Look("c", 4, True), None, "since version 4"),
        (None, Look("c", 3, True), None, ""),
        (SEEN, Look("d", 3, True), None, ""),
        (SEEN, Look("c", 4, False), None, ""),
        (SEEN, Look("c", 3, True), FAILED, ""),
    ],
)
def test_a_republication_needs_a_change_and_has_the_field_to_itself(
    before: Cursor | None, now: Look, last: LastRun | None, reason: str
) -> None:
    decision = decide(before, now, last)
    assert reason in decision
    assert bool(decision) is bool(reason)


class Platform:
    """The sensor and the job it starts, on one Dagster instance."""

    def __init__(self, shelf: Shelf, tools: OrderTools, lake: LakeResource, instance: dg.DagsterInstance) -> None:
        self.shelf, self._tools, self.instance = shelf, tools, instance
        self._resources = {"lake": lake, "providers": ShelfClients()}
        self.cursor: str | None = None
        self.keys: list[str | None] = []

    def tools(self) -> OrderTools:
        """Hand over the tools, as the resource does."""
        return self._tools

    def tick(self) -> bool:
        """Evaluate a whole tick as the daemon does; tell whether it asked for a run."""
        context = dg.build_sensor_context(self.instance, self.cursor, resources={"operations": self})
        result = price_conditions_sensor.evaluate_tick(context)
        self.cursor = result.cursor or self.cursor
        self.keys += [request.run_key for request in result.run_requests or ()]
        return bool(result.run_requests)

    def republish(self) -> None:
        """Run the job that was asked for."""
        assert republish_catalogue.execute_in_process(instance=self.instance, resources=self._resources).success

    def follow(self) -> int:
        """Tick until nothing is asked for; return how many republications that took."""
        runs = 0
        while self.tick():
            self.republish()
            runs += 1
        return runs

    def best(self) -> tuple[str, bool]:
        """Return the best offer of the one package, and whether it is on sale."""
        with self.shelf.desk.engine.connect() as conn:
            row = conn.execute(text("select best_offer_id, on_sale from packages")).one()
        return row.best_offer_id, row.on_sale

    def change(self, statement: str, **values: object) -> None:
        """Change the store."""
        with self.shelf.desk.engine.begin() as conn:
            conn.execute(text(statement), values)


@pytest.fixture
def platform(shelf: Shelf, settings: Settings, lake_resource: LakeResource) -> Iterator[Platform]:
    """Two providers' offers for one package, published and seen by a first tick."""
    for slug, cost in (("airalo", "4.5"), ("esim_go", "4.0")):
        shelf.providers[slug].offers = [offer(slug, cost)]
    tools = OrderTools(settings, clock=lambda: shelf.now)
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(shelf, tools, lake_resource, instance)
        assert not platform.tick()
        sync_catalogue(shelf.desk, providers=["airalo", "esim_go"])
        assert platform.follow() == 1
        yield platform
    tools.close()


def open_circuit(platform: Platform, slug: str = "esim_go") -> None:
    until = platform.shelf.now + timedelta(seconds=60)
    platform.change("update providers set open_until = :until where slug = :slug", until=until, slug=slug)


def test_a_circuit_that_opens_and_one_whose_time_is_over_are_one_run_each(platform: Platform, lake: Lake) -> None:
    open_circuit(platform)
    assert platform.follow() == 1
    assert platform.best() == ("airalo:1", True)
    assert lake.read("select best_provider from marts.best_price_packages").item() == "airalo"
    platform.shelf.later(61 / 3600)
    assert platform.follow() == 1
    assert platform.best() == ("esim_go:1", True)
    assert len(set(platform.keys)) == 3


@pytest.mark.parametrize(
    ("begins", "ends", "why"),
    [
        (
            "insert into provider_health (provider, degraded_since) values ('esim_go', now())",
            "update provider_health set degraded_since = null",
            "the provider is degraded (too few purchases succeed)",
        ),
        (
            "update providers set unfunded_at = now(), unfunded_micros = 1 where slug = 'esim_go'",
            "update providers set unfunded_at = null",
            "our balance at the provider does not suffice",
        ),
        (
            "insert into offer_outages values ('esim_go:1', date '2026-03-02', date '2026-04-01', 'sold out')",
            "delete from offer_outages",
            "out of stock (a purchase was refused)",
        ),
    ],
    ids=["degraded", "unfunded", "sold out"],
)
def test_a_best_price_moves_away_from_what_cannot_be_bought_and_back_and_says_why(
    platform: Platform, begins: str, ends: str, why: str
) -> None:
    platform.change(begins)
    assert platform.follow() == 1
    assert platform.best() == ("airalo:1", True)
    with platform.shelf.desk.engine.connect() as conn:
        unified = read_unified(platform.shelf.desk.lake)
        context = price_context(conn, ("USD",), platform.shelf.now)
    judged = with_eligibility(unified.with_columns(auto_mode=pl.lit(True), is_enabled=pl.lit(False)), context)
    assert judged.filter(provider="esim_go").get_column("reason").to_list() == [why]
    platform.change(ends)
    assert platform.follow() == 1
    assert platform.best() == ("esim_go:1", True)


def test_an_offer_that_was_sold_out_comes_back_by_itself_when_its_rest_is_over(platform: Platform) -> None:
    with platform.shelf.desk.engine.begin() as conn:
        rest_offer(conn, "esim_go:1", "sold out", platform.shelf.now)
    assert platform.follow() == 1
    assert platform.best() == ("airalo:1", True)
    platform.shelf.later(0.5)
    assert platform.follow() == 1
    assert platform.best() == ("esim_go:1", True)


def test_a_catalogue_that_tells_a_stock_again_puts_a_sold_out_offer_back_at_once(platform: Platform) -> None:
    sync = {"providers": ["airalo", "esim_go"]}
    platform.shelf.providers["esim_go"].offers = [offer("esim_go", "4.0", stock=50)]
    sync_catalogue(platform.shelf.desk, **sync)
    with platform.shelf.desk.engine.begin() as conn:
        rest_offer(conn, "esim_go:1", "sold out", platform.shelf.now)
    platform.follow()
    assert platform.best()[0] == "airalo:1"
    platform.shelf.later(0.1)
    sync_catalogue(platform.shelf.desk, **sync)
    platform.follow()
    assert platform.best()[0] == "esim_go:1"


def test_a_provider_switched_off_a_new_rule_and_a_new_rate_are_followed(platform: Platform) -> None:
    platform.change("update providers set enabled = false")
    assert platform.follow() == 1
    assert platform.best()[1] is False
    platform.change("update providers set enabled = true")
    assert platform.follow() == 1
    assert platform.best()[1] is True
    with platform.shelf.desk.engine.begin() as conn:
        add_rule(conn, PricingRule(0, RuleScope.GLOBAL, "*", markup_bp=9000), note="", by="test")
    assert platform.follow() == 1
    with platform.shelf.desk.engine.begin() as conn:
        save_rates(conn, Rates({"EUR": 1_000_000}, date(2026, 3, 3).isoformat()))
    assert platform.follow() == 1
    assert platform.follow() == 0


def test_a_sync_while_a_circuit_was_open_is_put_right_after_it(platform: Platform) -> None:
    """No tick sees the circuit open: the daemon was away."""
    open_circuit(platform)
    sync_catalogue(platform.shelf.desk, providers=["airalo", "esim_go"])
    assert platform.best()[0] == "airalo:1"
    platform.shelf.later(61 / 3600)
    assert platform.follow() == 1
    assert platform.best()[0] == "esim_go:1"


def test_nothing_is_asked_for_while_a_republication_is_going_and_the_change_is_not_forgotten(
    platform: Platform,
) -> None:
    going = platform.instance.create_run_for_job(republish_catalogue, status=dg.DagsterRunStatus.STARTED)
    open_circuit(platform)
    assert not platform.tick()
    platform.instance.report_run_canceled(going)
    platform.instance.delete_run(going.run_id)
    assert platform.follow() == 1
    assert platform.best()[0] == "airalo:1"
