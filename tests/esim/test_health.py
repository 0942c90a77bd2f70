"""Health from purchases: what counts, the rate with its margin, and the word an operator is shown."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.health import (
    FIRST_REST,
    MOST_TRIALS,
    WINDOW,
    Condition,
    Figures,
    HealthRule,
    PastTrial,
    Record,
    Standing,
    degraded,
    has_rested,
    judge,
    measure,
    percentile,
    standing,
    succeeded,
)
from esim.purchase import ErrorType

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
FINE = Condition(True, None, None, None)
STATES = ["intent", "prepared", "pending", "provisioned", "rejected", "unknown", "stocked"]
figures = st.integers(0, MOST_TRIALS).flatmap(
    lambda attempts: st.integers(0, attempts).map(lambda good: Figures(attempts, good, None, None))
)
rules = st.builds(HealthRule, st.integers(1, 50), st.integers(0, 100))
trials = st.builds(
    PastTrial,
    st.sampled_from(STATES),
    st.none() | st.sampled_from([str(each) for each in ErrorType]),
    st.booleans(),
    st.none() | st.integers(0, 60_000),
    st.integers(0, 7200).map(lambda seconds: NOW - timedelta(seconds=seconds)),
)


def trial(state: str, error: ErrorType | None = None, *, sent: bool = True, ms: int | None = 100) -> PastTrial:
    return PastTrial(state, error, sent, ms, NOW)


@pytest.mark.parametrize(
    ("of", "verdict"),
    [
        (trial("provisioned"), True),
        (trial("pending"), True),
        (trial("stocked"), True),
        (trial("unknown", ErrorType.PROVIDER_TIMEOUT), False),
        (trial("rejected", ErrorType.PROVIDER_API_ERROR), False),
        (trial("rejected", ErrorType.AUTH_FAILED), False),
        (trial("rejected", ErrorType.NOT_BOUGHT), False),  # its answer was lost
        (trial("rejected", ErrorType.NOT_BOUGHT, sent=False), None),  # our worker was
        (trial("rejected", ErrorType.OUT_OF_STOCK), None),
        (trial("rejected", ErrorType.INSUFFICIENT_BALANCE), None),
        (trial("intent"), None),
        (trial("prepared"), None),
    ],
)
def test_a_purchase_speaks_only_of_what_the_provider_is_to_blame_for(of: PastTrial, verdict: bool | None) -> None:
    assert succeeded(of) is verdict


@given(st.lists(trials, max_size=40))
def test_figures_count_the_last_hour_and_lie_within_what_was_measured(past: list[PastTrial]) -> None:
    counted = [one for one in past if one.started_at >= NOW - WINDOW and succeeded(one) is not None]
    found = measure(past, NOW, None)
    assert found.attempts == len(counted)
    assert 0 <= found.successes <= found.attempts
    times = [one.latency_ms for one in counted if one.latency_ms is not None]
    if not times:
        assert (found.p50_ms, found.p95_ms) == (None, None)
    else:
        assert found.p50_ms in times
        assert found.p95_ms in times
        assert sum(ms <= (found.p50_ms or 0) for ms in times) * 2 >= len(times)
        assert (found.p50_ms or 0) <= (found.p95_ms or 0)


@pytest.mark.parametrize(("values", "p50", "p95"), [([], None, None), ([7], 7, 7), (list(range(1, 101)), 50, 95)])
def test_percentiles_are_values_that_were_measured(values: list[int], p50: int | None, p95: int | None) -> None:
    assert (percentile(values, 50), percentile(values, 95)) == (p50, p95)


@given(figures, rules)
def test_a_degraded_provider_has_to_do_better_than_one_that_is_not(found: Figures, rule: HealthRule) -> None:
    if degraded(found, rule, already=False):
        assert degraded(found, rule, already=True)
        assert found.attempts >= rule.min_attempts


@given(figures, rules, st.booleans())
def test_one_more_success_never_makes_it_degraded(found: Figures, rule: HealthRule, already: bool) -> None:
    better = Figures(found.attempts + 1, found.successes + 1, None, None)
    if found.attempts >= rule.min_attempts and not degraded(found, rule, already=already):
        assert not degraded(better, rule, already=already)


@given(rules, st.booleans(), st.integers(10, 100))
def test_all_successes_are_never_degraded_and_no_success_always_is(rule: HealthRule, already: bool, n: int) -> None:
    assert not degraded(Figures(n, n, None, None), rule, already=already)
    wants_any = rule.min_success_percent > 0 or already
    enough = n >= rule.min_attempts
    assert degraded(Figures(n, 0, None, None), rule, already=already) is (wants_any and enough)


def test_the_rate_is_rounded_down_and_unknown_without_purchases() -> None:
    assert Figures(3, 2, None, None).success_percent == 66
    assert Figures(0, 0, None, None).success_percent is None


def test_what_was_tried_before_it_was_given_another_chance_does_not_count() -> None:
    chance = NOW - timedelta(minutes=2)
    past = [PastTrial("rejected", None, True, 1, chance + timedelta(seconds=late)) for late in (-9, 0, 1)]
    assert measure(past, NOW, chance).attempts == 1


def record(since: datetime | None = None, episodes: int = 0, open_until: datetime | None = None) -> Record:
    return Record(since, None, episodes, open_until)


@pytest.mark.parametrize(
    ("episodes", "minutes"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (99, 60)]
)
def test_a_degraded_provider_rests_for_a_minute_and_twice_as_long_each_time_in_an_hour(
    episodes: int, minutes: int
) -> None:
    rest = timedelta(minutes=minutes)
    assert has_rested(record(NOW - rest, episodes), NOW)
    assert not has_rested(record(NOW - rest + timedelta(seconds=1), episodes), NOW)


def test_nothing_rests_that_is_not_degraded_and_nothing_has_rested_while_its_circuit_is_open() -> None:
    assert not has_rested(record(), NOW)
    long_ago, later = NOW - WINDOW, NOW + timedelta(seconds=1)
    assert not has_rested(record(long_ago, 1, open_until=later), NOW)
    assert has_rested(record(long_ago, 1, open_until=NOW), NOW)
    assert judge(Figures(0, 0, None, None), HealthRule(), record(long_ago, 1, open_until=later), NOW)


@pytest.mark.parametrize(("episodes", "enough"), [(0, 10), (1, 5), (2, 2), (3, 2), (60, 2)])
def test_one_that_was_degraded_lately_is_called_so_again_by_half_as_many_purchases_each_time(
    episodes: int, enough: int
) -> None:
    for attempts, verdict in ((enough - 1, False), (enough, True)):
        assert judge(Figures(attempts, 0, None, None), HealthRule(), record(None, episodes), NOW) is verdict
    assert not judge(Figures(enough, enough, None, None), HealthRule(), record(None, episodes), NOW)


@given(figures, rules, st.integers(0, 9))
def test_what_was_just_called_degraded_is_so_at_the_next_look(found: Figures, rule: HealthRule, before: int) -> None:
    """Otherwise it would be told as degraded and recovered in turn, on the same purchases."""
    if judge(found, rule, record(None, before), NOW):
        assert judge(found, rule, record(NOW, before + 1), NOW + FIRST_REST / 2)


@pytest.mark.parametrize(
    ("about", "word", "why"),
    [
        (Condition(False, NOW + timedelta(seconds=9), NOW, NOW), Standing.SWITCHED_OFF, "a person"),
        (
            Condition(True, NOW + timedelta(seconds=9), NOW, NOW, "dns"),
            Standing.OPEN,
            "12:00:09 UTC after failures: dns",
        ),
        (Condition(True, NOW, NOW, NOW), Standing.UNFUNDED, "did not suffice at 2026-11-21 12:00"),
        (Condition(True, NOW, None, NOW), Standing.HALF_OPEN, "next purchase decides"),
        (Condition(True, None, None, NOW), Standing.DEGRADED, "4 of the last 9"),
        (FINE, Standing.HEALTHY, "4 of the last 9"),
    ],
)
def test_the_worst_is_what_an_operator_is_shown(about: Condition, word: Standing, why: str) -> None:
    stands, reason = standing(about, Figures(9, 4, 1, 2), NOW)
    assert stands is word
    assert why in reason


def test_without_purchases_a_provider_is_healthy_and_says_so() -> None:
    assert standing(FINE, Figures(0, 0, None, None), NOW) == (
        Standing.HEALTHY,
        "no purchase that counts in the last hour",
    )
