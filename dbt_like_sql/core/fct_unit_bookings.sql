-- One row per unit and ledger account booked for it.
with entries as (
    select
        order_id,
        unit_number,
        account,
        amount_micros
    from staging.stg_shop__ledger_entries
),

priced_units as (
    select
        units.esim_id,
        units.order_id,
        units.unit_number,
        greatest(items.unit_price_micros, 1)::hugeint as weight
    from staging.stg_shop__units as units
    inner join staging.stg_shop__order_items as items on units.item_id = items.item_id
),

weighted_units as (
    select
        *,
        sum(weight) over (partition by order_id order by unit_number)::hugeint as weight_so_far,
        sum(weight) over (partition by order_id)::hugeint as weight_in_all
    from priced_units
),

assigned_entries as (
    select
        entries.order_id,
        entries.account,
        entries.amount_micros,
        units.esim_id
    from entries
    left join priced_units as units on entries.order_id = units.order_id and entries.unit_number = units.unit_number
),

-- A booking of no unit in particular (a payment, a fee) is shared in proportion to the units' prices.
order_entries as (
    select
        order_id,
        account,
        sum(amount_micros)::hugeint as amount_micros
    from assigned_entries
    where esim_id is null
    group by all
),

-- Each unit takes the difference of two running shares, so that the shares add up to the booking exactly.
shared_entries as (
    select
        units.esim_id,
        bookings.account,
        bookings.amount_micros * units.weight_so_far // units.weight_in_all
        - bookings.amount_micros * (units.weight_so_far - units.weight) // units.weight_in_all as amount_micros
    from order_entries as bookings
    inner join weighted_units as units on bookings.order_id = units.order_id
),

all_entries as (
    select
        esim_id,
        account,
        amount_micros
    from assigned_entries
    where esim_id is not null
    union all
    select * from shared_entries
)

select
    esim_id,
    account,
    sum(amount_micros)::bigint as amount_micros
from all_entries
group by all
