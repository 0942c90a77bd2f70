-- One row per posting whose sides do not sum to zero.
select
    posting_key,
    sum(amount_micros)::bigint as amount_micros
from staging.stg_shop__ledger_entries
group by all
having sum(amount_micros) != 0
