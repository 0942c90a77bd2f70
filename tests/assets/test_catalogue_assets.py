"""The catalogue in Dagster: the same sync as a job, with checks, figures and holds that operators can read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from assets.catalogue import offers_key
from assets.catalogue_checks import catalogue_checks
from assets.packages import catalogue_assets
from esim.errors import ProviderUnavailable
from pipelines.catalogue_jobs import catalogue_jobs, catalogue_schedules
from resources.lake import LakeResource
from resources.warehouse.lake import Lake
from tests.assets.catalogue_builders import SLUGS, offer, plans, rates_source
from tests.assets.conftest import Shelf, ShelfClients


@pytest.fixture
def definitions(lake_resource: LakeResource, lake: Lake) -> dg.Definitions:
    resources = {"lake": lake_resource, "providers": ShelfClients()}
    return dg.Definitions(
        assets=catalogue_assets,
        asset_checks=catalogue_checks,
        jobs=catalogue_jobs,
        schedules=catalogue_schedules,
        resources=resources,
    )


def run(
    definitions: dg.Definitions,
    job: str = "sync_catalogue",
    *,
    accept: Sequence[str] = (),
    operator: str = "mia",
    reason: str = "they confirm it",
    selection: Sequence[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    form = {"accept": list(accept), "operator": operator, "reason": reason}
    config = {"ops": {"provider_catalogues": {"config": form}}} if accept else {}
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def(job).execute_in_process(
            run_config=config, instance=instance, asset_selection=selection, raise_on_error=False
        )


def figures(result: dg.ExecuteInProcessResult, *key: str) -> dict[str, object]:
    (event,) = [m for m in result.get_asset_materialization_events() if m.asset_key == dg.AssetKey(list(key))]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    found = result.get_asset_check_evaluations()
    return {f"{each.asset_key.path[-1]}:{each.check_name}" for each in found if not each.passed}


def stocked(shelf: Shelf) -> None:
    for number, slug in enumerate(SLUGS):
        shelf.providers[slug].offers = plans(slug, 60, factor=f"1.{number}")


def test_the_job_publishes_and_shows_figures(shelf: Shelf, definitions: dg.Definitions) -> None:
    stocked(shelf)
    result = run(definitions)
    assert result.success
    assert failed_checks(result) == set()
    assert len(result.get_asset_check_evaluations()) == 5 * 4 + len(catalogue_checks)
    raw = figures(result, "raw", "airalo_offers")
    assert (raw["dagster/row_count"], raw["rejected"], raw["held"]) == (60, 0, "no")
    best = figures(result, "marts", "best_price_packages")
    assert (best["on_sale"], best["contested"]) == (60, 60)
    assert "| airalo | 60 |" in str(best["wins"])
    assert str(best["price_distribution"]).startswith("![price distribution](data:image/png;base64,iVBOR")
    published = figures(result, "published_catalogue")
    assert (published["version"], published["new_version"], published["history_rows"]) == (1, True, 300)


def test_a_held_and_a_failing_provider_show_why_and_stop_nobody(shelf: Shelf, definitions: dg.Definitions) -> None:
    stocked(shelf)
    run(definitions)
    shelf.providers["airalo"].offers = plans("airalo", 30)
    shelf.providers["esim_go"].down = ProviderUnavailable("esim_go catalogue: HTTP 503")
    shelf.providers["mobimatter"].offers.append(offer("mobimatter", "1.0", number="new"))
    result = run(definitions)
    assert result.success
    assert "airalo_offers:shrinkage" in failed_checks(result)
    assert "esim_go_offers:units" in failed_checks(result)
    assert figures(result, "raw", "airalo_offers")["held"] == "the catalogue shrank by over 20 %: 30 plans after 60"
    assert figures(result, "raw", "esim_go_offers")["dagster/row_count"] == 60
    assert figures(result, "published_catalogue")["new_version"] is True


def test_a_provider_that_stays_away_is_not_fresh_any_more(shelf: Shelf, definitions: dg.Definitions) -> None:
    stocked(shelf)
    run(definitions)
    shelf.providers["esim_go"].down = ProviderUnavailable("esim_go catalogue: HTTP 503")
    shelf.later(6)
    assert "published_catalogue:catalogue_is_fresh" not in failed_checks(run(definitions))
    shelf.later(8)
    result = run(definitions)
    (late,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "catalogue_is_fresh"]
    assert not late.passed
    assert late.description == "esim_go: its catalogue could not be read: esim_go catalogue: HTTP 503"


def test_a_held_catalogue_is_taken_when_a_person_accepts_it(shelf: Shelf, definitions: dg.Definitions) -> None:
    stocked(shelf)
    run(definitions)
    shelf.providers["airalo"].offers = plans("airalo", 30)
    result = run(definitions, accept=["airalo"])
    assert failed_checks(result) == set()
    assert figures(result, "raw", "airalo_offers")["dagster/row_count"] == 30


def test_who_accepts_a_catalogue_is_kept_with_why_and_with_the_run(
    shelf: Shelf, definitions: dg.Definitions, engine: Engine
) -> None:
    stocked(shelf)
    accepted = run(definitions, accept=["airalo", "esim_go"])
    assert accepted.success
    columns = "actor, action, subject, reason, run_id"
    with engine.connect() as conn:
        kept = conn.execute(text(f"select {columns} from audit_events order by audit_id")).all()
    assert [tuple(row) for row in kept] == [
        ("operator:mia", "catalogue accept", f"provider {slug}", "they confirm it", accepted.run_id)
        for slug in ("airalo", "esim_go")
    ]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"accept": ["airalo"], "operator": " "}, "fill in `operator`"),
        ({"accept": ["airalo"], "reason": ""}, "fill in `reason`"),
        ({"accept": ["airalo", "nobody"]}, "`accept` names nobody, but this run reads airalo"),
    ],
)
def test_nothing_is_accepted_in_nobodys_name_nor_of_nobody(
    shelf: Shelf, definitions: dg.Definitions, engine: Engine, form: dict[str, Any], sentence: str
) -> None:
    stocked(shelf)
    run(definitions)
    shelf.providers["airalo"].offers = plans("airalo", 30)
    refused = run(definitions, **form)
    [failed] = [event for event in refused.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE]
    assert sentence in str(failed.step_failure_data.user_failure_data.description)
    with engine.connect() as conn:
        assert conn.execute(text("select 1 from audit_events")).all() == []
        on_offer = text("select count(*) from offers where provider = 'airalo' and on_offer")
        assert conn.execute(on_offer).scalar() == 60


def test_one_provider_and_what_is_downstream_can_be_selected(shelf: Shelf, definitions: dg.Definitions) -> None:
    stocked(shelf)
    run(definitions)
    for slug in SLUGS:
        shelf.providers[slug].offers.append(offer(slug, "4.0", number="new"))
    downstream = [dg.AssetKey(["staging", "unified_offers"]), dg.AssetKey(["marts", "best_price_packages"])]
    result = run(definitions, selection=[offers_key("esim_go"), *downstream, dg.AssetKey(["published_catalogue"])])
    assert result.success
    assert figures(result, "published_catalogue")["offers_changed"] == 1


def test_a_price_below_the_floor_blocks_the_publication(
    shelf: Shelf, definitions: dg.Definitions, engine: Engine
) -> None:
    stocked(shelf)
    with engine.begin() as conn:
        no_fee = "payment_fee_bp = 0, payment_fee_micros = 0"
        conn.execute(text(f"update pricing_rules set markup_bp = -9000, min_margin_micros = -9000000, {no_fee}"))
    result = run(definitions)
    assert not result.success
    assert "best_price_packages:no_package_below_its_floor" in failed_checks(result)
    assert dg.AssetKey("published_catalogue") not in {
        event.asset_key for event in result.get_asset_materialization_events()
    }


def test_rates_are_an_asset_that_does_not_believe_a_jump(shelf: Shelf, definitions: dg.Definitions, lake: Lake) -> None:
    assert run(definitions, "update_rates").success
    shelf.desk = replace(shelf.desk, rates=rates_source("2026-03-03", usd="1.6"))
    result = run(definitions, "update_rates")
    assert result.success
    seen = figures(result, "raw", "reference_rates")
    assert (seen["quoted_on"], seen["not_believed"]) == ("2026-03-02", "EUR, GBP, JPY")
    shelf.desk = replace(shelf.desk, rates=rates_source("2026-03-04", usd="1.2"))
    assert run(definitions, "update_rates").success
    days = lake.read("select quoted_on::varchar, count(*) from raw.reference_rates group by 1 order by 1").rows()
    assert days == [("2026-03-02", 3), ("2026-03-04", 3)]


def test_unreachable_rates_fail_their_asset_readably(shelf: Shelf, definitions: dg.Definitions) -> None:
    shelf.desk = replace(shelf.desk, rates=rates_source(status=503))
    result = run(definitions, "update_rates")
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "no reference rates from http://rates.test/daily.xml" in str(failure.step_failure_data.error)


def test_republishing_is_a_job(shelf: Shelf, definitions: dg.Definitions) -> None:
    stocked(shelf)
    run(definitions)
    assert run(definitions, "republish_catalogue").success


def test_every_asset_has_owner_group_kinds_description_and_schema() -> None:
    specs = [spec for asset in catalogue_assets for spec in asset.specs]
    assert {"/".join(spec.key.path) for spec in specs} == {
        *(f"raw/{slug}_offers" for slug in SLUGS),
        "raw/reference_rates",
        "staging/unified_offers",
        "marts/best_price_packages",
        "published_catalogue",
    }
    for spec in specs:
        assert (list(spec.owners), spec.group_name) == (["team:catalogue"], "catalogue")
        # A held provider's asset is materialised too: its freshness is the check's to judge.
        raw = spec.key.path[0] == "raw" and spec.key.path[-1] != "reference_rates"
        assert (spec.freshness_policy is None) is raw
        assert spec.kinds
        assert spec.description


def test_schedules_run_every_six_hours_and_daily() -> None:
    crons = {schedule.job_name: schedule.cron_schedule for schedule in catalogue_schedules}
    assert crons == {"sync_catalogue": "7 */6 * * *", "update_rates": "20 16 * * *"}
