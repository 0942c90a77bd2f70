-- One row per unit of an order.
select
    esim_id,
    order_id,
    item_id,
    n as unit_number,
    status,
    failures as failed_rounds,
    provider,
    offer_id,
    cost_amount as wholesale_cost,
    cost_currency as wholesale_currency,
    cost_micros as wholesale_cost_micros,
    last_error_type,
    delivered_at,
    refunded_at
from raw.esims
