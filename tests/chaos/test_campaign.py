"""The fault campaign: small ones find nothing, and one with a planted bug finds it."""

from collections.abc import Iterator

import pytest

from chaos.campaign import play
from chaos.history import story_of
from chaos.planted import BUYS_AGAIN
from chaos.scripted import Scripted
from chaos.stage import Stage, open_stage
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
