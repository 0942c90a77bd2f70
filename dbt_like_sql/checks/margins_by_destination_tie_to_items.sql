-- One row per total margin that is not what the order lines say.
with mart as (
    select coalesce(sum(margin_micros), 0)::bigint as margin_micros from marts.margins_by_destination
),

items as (
    select coalesce(sum(margin_micros), 0)::bigint as margin_micros from core.fct_order_items
)

select
    mart.margin_micros as mart_micros,
    items.margin_micros as items_micros
from mart
cross join items
where mart.margin_micros != items.margin_micros
