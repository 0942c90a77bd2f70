-- One row per attempt to buy a unit.
select
    attempt_id,
    esim_id,
    order_id,
    number as attempt_number,
    failover_step,
    provider,
    offer_id,
    expected_cost,
    cost as wholesale_cost,
    currency as cost_currency,
    cost_micros as wholesale_cost_micros,
    state,
    error_type,
    run_id,
    started_at,
    sent_at,
    finished_at,
    latency_ms
from raw.purchase_attempts
