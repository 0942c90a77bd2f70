"""What an order costs as the order table grows from a thousand to a million rows: flat, or an index is missing."""

import statistics
import time
from collections.abc import Callable

from sqlalchemy import Engine, text

from bench.order_shop import BenchShop, bench_shop
from pipelines.drain import Drain, DrainLimits
from resources.db.order_store import CLAIM
from resources.order_operations import OrderTools

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BATCH, ROUNDS = 100, 5
Judge = Callable[[str, float, float, str], None]
_OLD = """
with made as (
    select gen_random_uuid() as order_id, gen_random_uuid() as item_id, gen_random_uuid() as esim_id,
        now() - n * interval '1 second' as at, n from generate_series(cast(:low as int), cast(:high as int)) n
), o as (
    insert into orders (order_id, display_id, status, payment_status, email, amount_minor, currency, token_hash,
        catalogue_version, payment_intent, success_url, cancel_url, expires_at, created_at, paid_at, deadline_at,
        completed_at)
    select order_id, 'OLD' || n, 'completed', 'paid', 'bench@numnaroad.test', 499, 'USD', '-', 1, 'pi_old' || n,
        'http://127.0.0.1/', 'http://127.0.0.1/', at, at, at, at, at from made
), i as (
    insert into order_items (item_id, order_id, line, package_id, package, quantity, unit_price_minor, currency,
        unit_price_micros_usd, expected_landed_micros)
    select item_id, order_id, 1, 'old', '{}', 1, 499, 'USD', 4990000, 2000000 from made
), e as (
    insert into esims (esim_id, order_id, item_id, n, status, provider, provider_order_id, delivered_at)
    select esim_id, order_id, item_id, 1, 'delivered', 'airalo', 'old' || n, at from made
), a as (
    insert into purchase_attempts (esim_id, order_id, number, failover_step, provider, offer_id, provider_package_id,
        reference, fence, expected_cost, ceiling_cost, currency, state, started_at, finished_at)
    select esim_id, order_id, 1, 0, 'airalo', 'old', 'old', 'old' || n, 1, 2, 4, 'USD', 'provisioned', at, at from made
), v as (
    insert into order_events (order_id, esim_n, from_status, to_status, reason, actor, at)
    select order_id, 1, 'working', 'delivered', 'eSIM delivered', 'bench', at from made
), x as (
    insert into inbox_events (source, event_id, type, order_id, handled, received_at)
    select 'stripe', 'evt_old' || n, 'checkout.session.completed', order_id, 'paid', at from made
), r as (
    insert into refunds (refund_key, order_id, esim_n, payment_intent, amount_minor, currency, reason, state,
        finished_at)
    select 'refund\\:old' || n, order_id, 1, 'pi_old' || n, 499, 'USD', 'bench', 'succeeded', at
    from made where n % 50 = 0
), l as (
    insert into ledger_entries (posting_key, order_id, account, amount_micros, original_amount, original_currency,
        esim_n)
    select p.key || n, order_id, p.account, p.micros, p.micros / 1e6, 'USD', p.unit
    from made, (values ('payment\\:pi_old', 'cash', 4990000, null),
        ('payment\\:pi_old', 'customer_payment', -4990000, null), ('cost\\:old', 'cost_of_sales', 2000000, 1),
        ('cost\\:old', 'provider_balance', -2000000, 1)
    ) p(key, account, micros, unit)
)
insert into outbox (key, channel, kind, order_id, sent_at)
select 'old:' || n, 'mail', 'order_confirmation', order_id, at from made
"""


def growth(judge: Judge) -> None:
    """Fill the tables step by step; measure a drain of a hundred orders at each size, and show the claim's plan."""
    costs: dict[int, float] = {}
    with bench_shop(0, parts=("sandbox", "api")) as shop:
        tools = OrderTools(shop.settings)
        have = 0
        for size in SIZES:
            _fill(shop.engine, have, size)
            have = size
            costs[size] = statistics.median(_drain_ms(shop, tools) for _ in range(ROUNDS))
            print(f"  {size:>9} orders in the tables: {costs[size]:.2f} ms an order", flush=True)
        print("  the claim's plan at a million orders:")
        with shop.engine.connect() as conn:
            values = {"now": tools.clock(), "limit": 64, "owner": "bench", "until": tools.clock(), "run_id": None}
            for (line,) in conn.execute(text(f"explain {CLAIM.text}"), values):
                print(f"    {line}")
            conn.rollback()
        tools.close()
    judge("an order at a million rows against one at a thousand", costs[SIZES[-1]] / costs[SIZES[0]], 1.3, "x")


def _fill(engine: Engine, low: int, high: int) -> None:
    step = 50_000
    for start in range(low + 1, high + 1, step):
        with engine.begin() as conn:
            conn.execute(text("set local session_replication_role = replica"))  # no triggers: nobody is to wake up
            conn.execute(text(_OLD), {"low": start, "high": min(high, start + step - 1)})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("analyze"))


def _drain_ms(shop: BenchShop, tools: OrderTools) -> float:
    shop.place(BATCH, paid=True)
    started = time.perf_counter()
    Drain(tools, DrainLimits(64, 0.0, 60.0)).run()
    return 1000 * (time.perf_counter() - started) / BATCH
