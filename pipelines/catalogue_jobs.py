"""How and when the catalogue is brought in: the sync every six hours, the rates daily, and the republication.

`pipelines.sensors.price_conditions` asks for a republication; a person may too.
"""

from typing import Any

import dagster as dg

from assets.catalogue import RATES_KEY, offers_key, staging_unified_offers
from assets.catalogue_sync import what_follows
from assets.packages import best_price_packages, published_catalogue
from assets.publishing import republish
from resources.lake import LakeResource
from resources.provider_clients import ProviderClients
from resources.providers.registry import FACTORIES
from resources.warehouse.writes import write_tables

_UTC = "UTC"
_SYNCED = dg.AssetSelection.assets(
    *(offers_key(slug) for slug in FACTORIES), staging_unified_offers, best_price_packages, published_catalogue
)

sync_catalogue = dg.define_asset_job(
    "sync_catalogue",
    selection=_SYNCED,
    description=(
        "Reads the five catalogues and publishes the best prices. To sync one provider, select its raw asset and what"
        " is downstream of it; to take a held catalogue a person has checked, name it under `accept`, and say who and"
        " why."
    ),
    executor_def=dg.in_process_executor,
)
update_rates = dg.define_asset_job(
    "update_rates",
    selection=dg.AssetSelection.assets(RATES_KEY),
    description="Reads the European Central Bank's reference rates.",
    executor_def=dg.in_process_executor,
)


@dg.op
def publish_again(context: dg.OpExecutionContext, providers: ProviderClients, lake: LakeResource) -> None:
    """Choose and price again from the offers the store has, and append what changed to the price history."""
    with providers.desk(lake.lake()) as desk:
        now = desk.clock()
        done = republish(desk.engine, desk.currencies, now, run_id=context.run_id)
        write_tables(desk.lake, what_follows(desk.lake, done, now))
    context.add_output_metadata(
        {"version": done.version, "new_version": done.is_new, "packages_changed": done.changed_packages}
    )


@dg.job(
    executor_def=dg.in_process_executor,
    description="Moves best prices after a change of health, stock, rules or a person's choice, without a download.",
)
def republish_catalogue() -> None:
    """Publish again from the store alone."""
    publish_again()


catalogue_jobs: list[Any] = [  # dagster exports no name for what define_asset_job returns
    sync_catalogue,
    update_rates,
    republish_catalogue,
]
catalogue_schedules = [
    dg.ScheduleDefinition(
        name="sync_catalogue_every_6_hours",
        job=sync_catalogue,
        cron_schedule="7 */6 * * *",
        execution_timezone=_UTC,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    ),
    dg.ScheduleDefinition(
        name="update_rates_daily",
        job=update_rates,
        cron_schedule="20 16 * * *",  # the bank publishes at about 16:00 CET
        execution_timezone="Europe/Berlin",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    ),
]
