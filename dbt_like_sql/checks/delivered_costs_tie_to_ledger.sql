-- One row per unit whose cost is not the one in the ledger.
with costs as (
    select
        order_id,
        unit_number,
        sum(amount_micros)::bigint as booked_micros
    from staging.stg_shop__ledger_entries
    where account = 'cost_of_sales'
    group by all
)

select
    units.esim_id,
    units.wholesale_cost_micros,
    costs.booked_micros
from staging.stg_shop__units as units
left join costs on units.order_id = costs.order_id and units.unit_number = costs.unit_number
where
    units.status = 'delivered'
    and units.wholesale_cost_micros is distinct from costs.booked_micros
