-- One row per order line.
select
    item_id,
    order_id,
    line as line_number,
    package_id,
    quantity,
    unit_price_minor,
    currency,
    unit_price_micros_usd as unit_price_micros,
    expected_landed_micros as expected_cost_micros
from raw.order_items
