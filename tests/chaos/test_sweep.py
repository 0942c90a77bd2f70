"""What a campaign plays step by step, in its smallest form: a sweep, a fault at all five, a pause past the lease."""

from collections.abc import Iterator
from signal import SIGSTOP

import pytest

from chaos.coverage import never_struck, required, rows, table
from chaos.every_fault import strike
from chaos.moods import PAID_BACK_UNTOLD
from chaos.pauses import pause_past_the_lease
from chaos.points import AFTER, BEFORE, COMMIT, REQUEST, Fate
from chaos.stage import Stage, open_stage
from chaos.sweep import RULE, sweep
from resources.settings import PROVIDERS
from tests.ports import free_port


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage((free_port(), free_port(), free_port())) as stage:
        yield stage


def test_a_worker_dies_around_a_refund_and_a_point_that_is_not_reached_is_a_violation(stage: Stage) -> None:
    result = sweep(stage, 1, moods=[PAID_BACK_UNTOLD], commits=["refund booked", "refund not paid"])
    for side in (BEFORE, AFTER):
        assert result.counts[f"worker killed {side} commit: refund booked"] == 1
    assert [(one.rule, one.text) for one in result.violations] == [
        (RULE, f"none was killed {side} commit: refund not paid") for side in (BEFORE, AFTER)
    ]
    assert result.counts["units refunded"] > 0


def test_a_purchase_whose_answer_never_comes_is_survived_at_every_provider(stage: Stage) -> None:
    result = strike(stage, 1, [("order", "timeout_after", PROVIDERS)])
    assert result.violations == []
    for slug in PROVIDERS:
        assert result.counts[f"fault at {slug} order timeout_after"] == 1


def test_workers_that_wake_up_after_others_took_over_do_no_harm(stage: Stage) -> None:
    steps = [
        (Fate(COMMIT, AFTER, 1, "intent to buy", SIGSTOP), 0),
        (Fate(REQUEST, BEFORE, 2, "POST esim_card", SIGSTOP), PROVIDERS.index("esim_card")),
    ]
    result = pause_past_the_lease(stage, 1, steps, in_real_time=False)
    assert result.violations == []
    assert result.counts["workers that slept past their lease and woke up"] == len(steps)


def test_what_is_required_is_what_a_providers_contract_has() -> None:
    wanted = {(one.provider, one.kind) for one in required()}
    assert {kind for slug, kind in wanted if slug == "esim_card"} >= {"timeout_after", "reset_after", "error_after"}
    assert ("airalo", "async_never") not in wanted
    assert ("mobimatter", "rate_limited") not in wanted
    assert len(wanted) > 5 * 16


def test_a_fault_counts_at_the_call_it_is_required_of_and_a_moved_price_at_any() -> None:
    whole = {f"{one.provider} {one.call.replace('*', 'status')} {one.kind}": 2 for one in required()}
    assert never_struck(whole) == []
    assert never_struck(whole | {"esim_card order timeout_after": 0}) == ["esim_card order timeout_after"]
    assert never_struck({name: n for name, n in whole.items() if name != "airalo status price_change"}) == [
        "airalo * price_change"
    ]


def test_the_table_has_a_row_for_each_fault_and_says_what_never_struck() -> None:
    lines = table({"airalo order refuse": 1_234})
    assert sum(line.startswith("| ") for line in lines) == 1 + len(list(rows()))
    assert "| order refuse | 1,234 | 0 | 0 | 0 | 0 |" in lines
    assert "| order upstream_down |  |  |  | 0 |  |" in lines
    assert lines[-1].startswith("Never struck: ")
    assert "esim_card order timeout_after" in lines[-1]
