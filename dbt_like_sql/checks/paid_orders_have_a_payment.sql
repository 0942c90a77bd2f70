-- One row per paid order without a payment in the ledger.
with payments as (
    select distinct order_id
    from staging.stg_shop__ledger_entries
    where account = 'customer_payment'
)

select orders.order_id
from staging.stg_shop__orders as orders
left join payments on orders.order_id = payments.order_id
where orders.paid_at is not null and payments.order_id is null
