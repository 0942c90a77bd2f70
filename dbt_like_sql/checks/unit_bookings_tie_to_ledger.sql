-- One row per order and account whose bookings by unit are not those of the ledger.
with ledger as (
    select
        order_id,
        account,
        sum(amount_micros)::bigint as amount_micros
    from staging.stg_shop__ledger_entries
    group by all
),

bookings as (
    select
        units.order_id,
        bookings.account,
        sum(bookings.amount_micros)::bigint as amount_micros
    from core.fct_unit_bookings as bookings
    inner join staging.stg_shop__units as units on bookings.esim_id = units.esim_id
    group by all
)

select
    ledger.order_id,
    ledger.account,
    ledger.amount_micros as ledger_micros,
    bookings.amount_micros as bookings_micros
from ledger
left join bookings on ledger.order_id = bookings.order_id and ledger.account = bookings.account
where ledger.amount_micros is distinct from bookings.amount_micros
