-- One row per order whose margin is not what the ledger says we own more of.
with ledger as (
    select
        order_id,
        sum(amount_micros)::bigint as margin_micros
    from staging.stg_shop__ledger_entries
    where account in ('cash', 'provider_balance', 'stock')
    group by all
),

units as (
    select
        order_id,
        sum(margin_micros)::bigint as margin_micros
    from core.fct_order_units
    group by all
)

select
    coalesce(ledger.order_id, units.order_id) as order_id,
    ledger.margin_micros as ledger_micros,
    units.margin_micros as units_micros
from ledger
full join units on ledger.order_id = units.order_id
where coalesce(ledger.margin_micros, 0) != coalesce(units.margin_micros, 0)
