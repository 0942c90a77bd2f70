-- One row per order.
select
    order_id,
    display_id,
    status,
    payment_status,
    amount_minor,
    currency,
    refunded_minor,
    customer_country,
    channel,
    created_at,
    paid_at,
    completed_at
from raw.orders
