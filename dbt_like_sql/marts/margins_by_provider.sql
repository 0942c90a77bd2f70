-- One row per provider that delivered units, and one for the units nobody delivered.
with order_units as (
    select
        coalesce(provider, 'none') as provider,
        order_id,
        unit_status,
        failover_steps,
        gross_micros,
        payment_fee_micros,
        wholesale_cost_micros,
        refund_micros,
        failover_loss_micros,
        margin_micros
    from core.fct_order_units
)

select
    provider,
    count(distinct order_id) as orders,
    count(*) as units,
    count(*) filter (where unit_status = 'delivered') as delivered_units,
    count(*) filter (where unit_status = 'refunded') as refunded_units,
    count(*) filter (where failover_steps > 0) as failover_units,
    sum(gross_micros)::bigint as gross_micros,
    sum(payment_fee_micros)::bigint as payment_fee_micros,
    sum(wholesale_cost_micros)::bigint as wholesale_cost_micros,
    sum(refund_micros)::bigint as refund_micros,
    sum(failover_loss_micros)::bigint as failover_loss_micros,
    sum(margin_micros)::bigint as margin_micros,
    (sum(margin_micros)::bigint * 0.000001)::decimal(18, 6) as margin_usd
from order_units
group by all
order by margin_micros desc, provider asc
