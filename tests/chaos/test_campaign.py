"""The fault campaign: small ones find nothing, and one with a planted bug finds it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from chaos.campaign import play
from chaos.customers import ALL_BACK, DISPUTE, SECOND, SUCCEED, Buyer
from chaos.history import story_of
from chaos.invariants import check
from chaos.patience import rest
from chaos.planted import BUYS_AGAIN
from chaos.quiet import settle_down
from chaos.scripted import Scripted
from chaos.sides import read_sides
from chaos.stage import Stage, open_stage
from resources.db.vault import Vault
from resources.settings import PROVIDERS
from tests.ports import free_port


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage((free_port(), free_port(), free_port())) as stage:
        yield stage


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_paid_unit_ends_once_under_faults_and_kills(stage: Stage, seed: int) -> None:
    result = play(stage, seed, orders=8)
    assert result.sides is not None
    assert [story_of(one, result.sides) for one in result.violations] == []
    assert result.counts["orders paid"] > 0
    assert result.counts["workers started"] > 0


def test_a_campaign_finds_an_adapter_that_takes_no_answer_for_a_refusal(stage: Stage) -> None:
    with stage.shop("planted") as shop:
        script = Scripted(shop, "planted")
        faults = [
            {"provider": slug, "call": "order", "kind": "reset_after", "times": 1, "params": {}} for slug in PROVIDERS
        ]
        stage.outside.put_faults(faults)
        script.order(shop.package_ids[0])
        shop.start_drain(bug=BUYS_AGAIN, idle_seconds=0.2, max_seconds=3.0)
        shop.end_drains(30.0)
        result = script.end(BUYS_AGAIN)
    assert "nothing is sold unseen" in {violation.rule for violation in result.violations}
    assert result.sides is not None
    stories = "\n".join(story_of(one, result.sides) for one in result.violations)
    assert "not bought" in stories
    assert "reference" in stories
    assert "the payment service" in stories


def test_without_the_bug_the_same_orders_break_nothing(stage: Stage) -> None:
    with stage.shop("not-planted") as shop:
        script = Scripted(shop, "not-planted")
        for slug in PROVIDERS:
            stage.outside.put_faults([{"provider": slug, "call": "order", "kind": "reset_after", "times": 1}])
        script.order(shop.package_ids[0])
        shop.start_drain(idle_seconds=0.2, max_seconds=3.0)
        shop.end_drains(30.0)
        result = script.end()
    assert result.violations == []
    assert result.counts["units delivered"] == 1


def test_a_delivered_esim_that_is_in_stock_too_is_a_violation(stage: Stage) -> None:
    with stage.shop("in-stock") as shop:
        script = Scripted(shop, "in-stock")
        script.order(shop.package_ids[0])
        shop.start_drain(idle_seconds=0.2, max_seconds=3.0)
        shop.end_drains(30.0)
        with shop.engine.begin() as conn:
            conn.execute(
                text(
                    "insert into stock_esims (attempt_id, provider, offer_id, provider_order_id, iccid_hash, reason)"
                    " select a.attempt_id, e.provider, e.offer_id, 'named-otherwise', e.iccid_hash, 'test'"
                    " from esims e join purchase_attempts a using (esim_id)"
                )
            )
        sides = read_sides(shop.engine, stage.outside, Vault.from_settings(shop.settings))
        script.end()
    assert [violation.n for violation in check(sides)[0] if violation.rule == "stock is nobody's"] == [1]


def test_the_wait_in_real_time_ends_when_everything_has_its_end_and_not_before(stage: Stage) -> None:
    with stage.shop("patience") as shop:
        script = Scripted(shop, "patience")
        script.order(shop.package_ids[0])
        shop.start_drain(idle_seconds=2.0, max_seconds=30.0)
        rest(shop.engine, stage.outside, script.customers, script.baskets, script.tally)
        with shop.engine.connect() as conn:
            assert conn.scalar(text("select status from orders")) == "completed"
            assert conn.scalar(text("select count(*) from outbox where sent_at is null")) == 0
        assert script.tally.counts["waits that were given up"] == 0
        shop.end_drains(30.0)
        assert script.end().violations == []


def test_what_was_lost_is_found_by_the_reconciler_alone(stage: Stage) -> None:
    with stage.shop("reconciled") as shop:
        script = Scripted(shop, "reconciled")
        lost = {"copies": 1, "reorder": False, "lost": True, "delay_s": 0.0}
        for n, later in enumerate(("", ALL_BACK, DISPUTE, SECOND)):
            basket = script.customers.buy(Buyer(f"lost-{n}", ((shop.package_ids[n], 1),), SUCCEED, lost, later))
            assert basket is not None
            script.baskets.append(basket)
        missed = settle_down(shop, script.baskets, script.customers, script.tally, reconciled=True)
        assert missed == []
        script.customers.close()
        sides = read_sides(shop.engine, stage.outside, Vault.from_settings(shop.settings))
        assert [story_of(one, sides) for one in check(sides)[0]] == []
    assert script.tally.counts["lost payments found by the reconciler"] == 4
    assert script.tally.counts["lost payments found by the order page"] == 0
    assert script.tally.counts["mended by the reconciler: charge.dispute.created"] == 1
