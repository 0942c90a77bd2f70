"""Two drains at once over providers that do every kind of mischief at random: the books agree in the end."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random
from threading import Lock

import pytest
from sqlalchemy import text

from esim.errors import PaymentUnavailable
from esim.purchase import ErrorType, Outcome, PurchaseRequest
from tests.pipelines.actors import (
    ScriptedProvider,
    Step,
    accepts,
    breaks_after_selling,
    never_hears,
    rejects,
    sells,
    sells_without_answer,
)
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import paid_order

Rows = Callable[[str], list[dict[str, object]]]
MISCHIEF: list[Step] = [
    sells,
    sells_without_answer,
    never_hears,
    accepts,
    breaks_after_selling,
    rejects(ErrorType.NETWORK_ERROR),
    rejects(ErrorType.OUT_OF_STOCK),
    rejects(ErrorType.INVALID_PRODUCT),
    rejects(ErrorType.RATE_LIMITED, 2.0),
]


class Moody(ScriptedProvider):
    """A provider in a mood: what a purchase ends in depends on its reference and the seed, whoever asks first."""

    def __init__(self, slug: str, seed: int) -> None:
        super().__init__(slug)
        self.rng, self.lock = Random(seed), Lock()

    def purchase(self, request: PurchaseRequest, evidence: object) -> Outcome:
        with self.lock:
            step = self.rng.choice(MISCHIEF)
            self.asked.append(request.reference)
        return step(self, request)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_unit_ends_once_and_the_books_agree(shop: Shop, rows: Rows, seed: int) -> None:
    shop.cheap, shop.dear = Moody("airalo", seed), Moody("esim_go", seed + 100)
    shop.gateway.failures.append(PaymentUnavailable("away for a moment"))
    shop.tools = shop.tools_with()
    orders = [paid_order(shop.engine, units=units) for units in Random(seed).choices([1, 1, 2, 4], k=24)]
    for _ in range(200):  # some thirty do where the machine has time
        with ThreadPoolExecutor(2) as pool:
            reports = [one.result(timeout=60) for one in [pool.submit(shop.drain, 0.0, 0.3) for _ in range(2)]]
        assert [report.errors for report in reports] == [0, 0]
        [left] = rows("select count(*) as n from esims where status not in ('delivered', 'refunded')")
        if not left["n"]:
            break
        leap(shop)
    shop.drain()
    assert rows("select distinct status from esims order by 1") in (
        [{"status": "delivered"}],
        [{"status": "delivered"}, {"status": "refunded"}],
    )
    assert rows("select count(*) as n from orders where status not in ('completed', 'refunded')") == [{"n": 0}]
    check_books(shop, rows, len(orders))


def check_books(shop: Shop, rows: Rows, orders: int) -> None:
    """Compare what providers sold and the payment service paid back with what the store says."""
    [delivered] = rows(
        "select count(*) as n, count(distinct iccid_hash) as esims from esims where status = 'delivered'"
    )
    [stock] = rows("select count(*) as n from stock_esims")
    assert (delivered["n"], stock["n"]) == (delivered["esims"], 0)
    assert (
        delivered["n"]
        == shop.sold
        == rows("select count(*) as n from purchase_attempts where state = 'provisioned'")[0]["n"]
    )
    assert all(len(esims) == 1 for provider in (shop.cheap, shop.dear) for esims in provider.sold.values())
    assert len(shop.cheap.asked + shop.dear.asked) == len({*shop.cheap.asked, *shop.dear.asked})
    refunded = {
        f"refund:{row['order_id']}:{row['n']}"
        for row in rows("select order_id, n from esims where status = 'refunded'")
    }
    assert set(shop.gateway.paid) == refunded
    assert rows("select coalesce(sum(refunded_minor), 0)::bigint as m from orders") == [{"m": 499 * len(refunded)}]
    assert rows("select posting_key from ledger_entries group by 1 having sum(amount_micros) <> 0") == []
    keys = [key for key, _ in shop.mailer.sent]
    assert len(keys) == len(set(keys)) >= orders
    told = rows(
        "select order_id, kind, jsonb_array_elements(payload -> 'esims') as n from outbox where channel = 'mail'"
    )
    assert len(told) == len({(row["order_id"], row["n"]) for row in told}) == delivered["n"] + len(refunded)


def leap(shop: Shop) -> None:
    """Move the clock to the next thing that is due; the refunds' and notices' own clock is the store's."""
    with shop.engine.begin() as conn:
        due = conn.scalar(
            text("select min(next_attempt_at) from esims where status in ('queued', 'pending', 'unknown')")
        )
        conn.execute(text("update refunds set next_attempt_at = now() where state = 'requested'"))
    shop.clock.now = max(shop.clock.now + timedelta(seconds=1), due or shop.clock.now)
