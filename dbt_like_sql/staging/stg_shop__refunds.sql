-- One row per refund.
select
    refund_key,
    order_id,
    esim_n as unit_number,
    amount_minor as refund_minor,
    currency,
    reason as refund_reason,
    state as refund_state,
    created_at,
    finished_at
from raw.refunds
