"""The only Definitions object: assembles what the other modules declare, computes nothing, reads no environment."""

import dagster as dg

from assets.asset_health import asset_health
from assets.attention import attention_assets
from assets.catalogue_checks import catalogue_checks
from assets.operations import operations_assets
from assets.packages import catalogue_assets
from assets.reconciliation import reconciliation_assets
from assets.warehouse import warehouse_assets
from pipelines.catalogue_jobs import catalogue_jobs, catalogue_schedules
from pipelines.operations_jobs import operations_jobs, operations_schedules
from pipelines.operator_jobs import operator_jobs
from pipelines.order_jobs import order_jobs
from pipelines.order_schedules import order_schedules
from pipelines.reconcile_jobs import reconcile_jobs, reconcile_schedules
from pipelines.sensors.asset_health import asset_health_sensor
from pipelines.sensors.attention import attention_sensors
from pipelines.sensors.operations_watch import operations_sensors
from pipelines.sensors.paid_orders import order_sensors
from pipelines.sensors.price_conditions import price_conditions_sensor
from pipelines.sensors.provider_health import provider_health_sensor
from pipelines.warehouse_jobs import warehouse_jobs, warehouse_schedules, warehouse_sensors
from resources.lake import LakeResource
from resources.order_operations import OrderOperations
from resources.provider_clients import ProviderClients

defs = dg.Definitions(
    assets=[
        *catalogue_assets,
        *warehouse_assets,
        *reconciliation_assets,
        *operations_assets,
        *attention_assets,
        asset_health,
    ],
    asset_checks=catalogue_checks,
    jobs=[*catalogue_jobs, *order_jobs, *operator_jobs, *operations_jobs, *reconcile_jobs, *warehouse_jobs],
    schedules=[
        *catalogue_schedules,
        *order_schedules,
        *operations_schedules,
        *reconcile_schedules,
        *warehouse_schedules,
    ],
    sensors=[
        *order_sensors,
        price_conditions_sensor,
        provider_health_sensor,
        asset_health_sensor,
        *operations_sensors,
        *attention_sensors,
        *warehouse_sensors,
    ],
    resources={
        "lake": LakeResource(),
        "providers": ProviderClients(),
        "operations": OrderOperations(),
    },
    executor=dg.in_process_executor,
)
