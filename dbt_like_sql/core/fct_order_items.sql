-- One row per line of an order that was paid or has money booked.
with packages as (
    select
        package_id,
        package_name,
        destination_code,
        destination_name,
        destination_type
    from staging.stg_shop__packages
),

lines as (
    select
        item_id,
        order_id,
        line_number,
        package_id,
        order_status,
        channel,
        customer_country,
        currency,
        paid_on,
        string_agg(distinct provider, ', ' order by provider) as providers,
        count(*) as units,
        count(*) filter (where unit_status = 'delivered') as delivered_units,
        count(*) filter (where unit_status = 'refunded') as refunded_units,
        sum(price_minor)::bigint as gross_minor,
        sum(gross_micros)::bigint as gross_micros,
        sum(payment_fee_micros)::bigint as payment_fee_micros,
        sum(wholesale_cost_micros)::bigint as wholesale_cost_micros,
        sum(refund_micros)::bigint as refund_micros,
        sum(failover_loss_micros)::bigint as failover_loss_micros,
        sum(margin_micros)::bigint as margin_micros
    from core.fct_order_units
    group by all
)

select
    lines.item_id,
    lines.order_id,
    lines.line_number,
    lines.package_id,
    coalesce(packages.package_name, 'unresolved') as package_name,
    coalesce(packages.destination_code, 'unresolved') as destination_code,
    coalesce(packages.destination_name, 'unresolved') as destination_name,
    coalesce(packages.destination_type, 'unresolved') as destination_type,
    lines.providers,
    lines.order_status,
    lines.channel,
    lines.customer_country,
    lines.units,
    lines.delivered_units,
    lines.refunded_units,
    lines.currency,
    lines.gross_minor,
    lines.gross_micros,
    lines.payment_fee_micros,
    lines.wholesale_cost_micros,
    lines.refund_micros,
    lines.failover_loss_micros,
    lines.margin_micros,
    lines.paid_on
from lines
left join packages on lines.package_id = packages.package_id
