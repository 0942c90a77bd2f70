-- One row per unit of an order that was paid or has money booked.
with amounts as (
    select
        esim_id,
        coalesce(-sum(amount_micros) filter (where account = 'customer_payment'), 0)::bigint as gross_micros,
        coalesce(sum(amount_micros) filter (where account = 'payment_fees'), 0)::bigint as payment_fee_micros,
        coalesce(sum(amount_micros) filter (where account = 'cost_of_sales'), 0)::bigint as wholesale_cost_micros,
        coalesce(sum(amount_micros) filter (where account in ('refunds', 'disputes')), 0)::bigint as refund_micros,
        coalesce(sum(amount_micros) filter (where account = 'loss'), 0)::bigint as failover_loss_micros
    from core.fct_unit_bookings
    group by all
),

attempts as (
    select
        esim_id,
        count(*) as purchase_attempts,
        max(failover_step) as failover_steps
    from staging.stg_shop__purchase_attempts
    group by all
),

bookings as (
    select
        order_id,
        min(booked_at) as first_booked_at
    from staging.stg_shop__ledger_entries
    group by all
)

select
    units.esim_id,
    units.order_id,
    units.item_id,
    units.unit_number,
    items.line_number,
    items.package_id,
    units.provider,
    units.offer_id,
    units.status as unit_status,
    orders.status as order_status,
    orders.channel,
    orders.customer_country,
    coalesce(attempts.purchase_attempts, 0)::bigint as purchase_attempts,
    coalesce(attempts.failover_steps, 0)::bigint as failover_steps,
    items.currency,
    items.unit_price_minor as price_minor,
    items.expected_cost_micros,
    coalesce(amounts.gross_micros, 0)::bigint as gross_micros,
    coalesce(amounts.payment_fee_micros, 0)::bigint as payment_fee_micros,
    coalesce(amounts.wholesale_cost_micros, 0)::bigint as wholesale_cost_micros,
    coalesce(amounts.refund_micros, 0)::bigint as refund_micros,
    coalesce(amounts.failover_loss_micros, 0)::bigint as failover_loss_micros,
    coalesce(
        amounts.gross_micros
        - amounts.payment_fee_micros
        - amounts.wholesale_cost_micros
        - amounts.refund_micros
        - amounts.failover_loss_micros,
        0
    )::bigint as margin_micros,
    coalesce(orders.paid_at, bookings.first_booked_at)::date as paid_on,
    orders.paid_at,
    units.delivered_at
from staging.stg_shop__units as units
inner join staging.stg_shop__order_items as items on units.item_id = items.item_id
inner join staging.stg_shop__orders as orders on units.order_id = orders.order_id
left join amounts on units.esim_id = amounts.esim_id
left join attempts on units.esim_id = attempts.esim_id
left join bookings on units.order_id = bookings.order_id
where orders.paid_at is not null or bookings.first_booked_at is not null
