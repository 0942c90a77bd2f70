-- One row per destination sold.
with order_items as (
    select
        destination_code,
        destination_name,
        destination_type,
        order_id,
        units,
        delivered_units,
        refunded_units,
        gross_micros,
        payment_fee_micros,
        wholesale_cost_micros,
        refund_micros,
        failover_loss_micros,
        margin_micros
    from core.fct_order_items
)

select
    destination_code,
    any_value(destination_name) as destination_name,
    any_value(destination_type) as destination_type,
    count(distinct order_id) as orders,
    sum(units)::bigint as units,
    sum(delivered_units)::bigint as delivered_units,
    sum(refunded_units)::bigint as refunded_units,
    sum(gross_micros)::bigint as gross_micros,
    sum(payment_fee_micros)::bigint as payment_fee_micros,
    sum(wholesale_cost_micros)::bigint as wholesale_cost_micros,
    sum(refund_micros)::bigint as refund_micros,
    sum(failover_loss_micros)::bigint as failover_loss_micros,
    sum(margin_micros)::bigint as margin_micros,
    (sum(margin_micros)::bigint * 0.000001)::decimal(18, 6) as margin_usd
from order_items
group by all
order by margin_micros desc, destination_code asc
