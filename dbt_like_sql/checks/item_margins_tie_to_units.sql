-- One row per total margin that is not what the units say.
with items as (
    select coalesce(sum(margin_micros), 0)::bigint as margin_micros from core.fct_order_items
),

units as (
    select coalesce(sum(margin_micros), 0)::bigint as margin_micros from core.fct_order_units
)

select
    items.margin_micros as items_micros,
    units.margin_micros as units_micros
from items
cross join units
where items.margin_micros != units.margin_micros
