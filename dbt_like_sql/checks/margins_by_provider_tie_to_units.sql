-- One row per total margin that is not what the units say.
with mart as (
    select coalesce(sum(margin_micros), 0)::bigint as margin_micros from marts.margins_by_provider
),

units as (
    select coalesce(sum(margin_micros), 0)::bigint as margin_micros from core.fct_order_units
)

select
    mart.margin_micros as mart_micros,
    units.margin_micros as units_micros
from mart
cross join units
where mart.margin_micros != units.margin_micros
