-- One row per side of a posting.
select
    entry_id,
    posting_key,
    order_id,
    esim_n as unit_number,
    account,
    amount_micros,
    original_amount,
    original_currency,
    booked_at
from raw.ledger_entries
