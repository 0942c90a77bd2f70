"""What processes share about providers: circuit, rate limits, tokens."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from esim.money import Cost
from esim.ports import RateLimit
from esim.purchase import ErrorType, EsimProfile, Outcome, Provisioned, Rejected, Unknown
from resources.db.attention import attention
from resources.db.audit import Operator
from resources.db.limiter import PostgresLimiter, spacing_seconds
from resources.db.operator_providers import set_enabled
from resources.db.provider_events import newest_events
from resources.db.provider_state import (
    FAILURES_TO_OPEN,
    claim_read_probe,
    end_read_probe,
    note_outcome,
    reset_circuit,
    resting_providers,
    take_probe,
)
from resources.db.tables import provider_tokens, providers
from resources.db.tokens import PostgresTokenStore
from resources.db.vault import Vault
from tests.resources.db.shop import NOW
from tests.resources.db.test_alerts import is_open, told

TIMEOUT = Unknown(ErrorType.PROVIDER_TIMEOUT, "read timed out")
BOUGHT = Provisioned(EsimProfile("8900", "smdp.example.com", "CODE"), "o-1", Cost.parse("2", "USD"))


def resting(engine: Engine, now: datetime) -> list[str]:
    with engine.connect() as conn:
        return [one.slug for one in resting_providers(conn, now)]


def circuit(engine: Engine) -> tuple[int, object]:
    with engine.connect() as conn:
        row = conn.execute(select(providers).where(providers.c.slug == "airalo")).one()
    return row.failures, row.open_until


def test_five_failures_open_the_circuit_for_a_minute_and_one_probe_decides(engine: Engine) -> None:
    opened = [note_outcome(engine, "airalo", TIMEOUT, NOW) for _ in range(FAILURES_TO_OPEN)]
    assert opened == [False] * 4 + [True]
    assert circuit(engine) == (5, NOW + timedelta(seconds=60))
    later = NOW + timedelta(seconds=61)
    with engine.begin() as conn:
        assert not take_probe(conn, "airalo", NOW)
        assert take_probe(conn, "airalo", later)
        assert not take_probe(conn, "airalo", later)
    assert note_outcome(engine, "airalo", TIMEOUT, later)  # the probe failed: it opens again
    assert circuit(engine) == (6, later + timedelta(seconds=60))
    assert not note_outcome(engine, "airalo", BOUGHT, later)
    assert circuit(engine) == (0, None)
    with engine.begin() as conn:
        assert take_probe(conn, "airalo", later)


def test_an_episode_is_told_once_when_it_begins_and_once_when_it_ends_and_each_step_is_noted(engine: Engine) -> None:
    minute = timedelta(seconds=61)
    for _ in range(FAILURES_TO_OPEN):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    note_outcome(engine, "airalo", TIMEOUT, NOW + minute)
    note_outcome(engine, "airalo", TIMEOUT, NOW + 2 * minute)
    note_outcome(engine, "airalo", BOUGHT, NOW + 3 * minute)
    assert [text.partition(":")[0] for text in told(engine)] == ["airalo", "airalo"]
    assert "five" not in told(engine)[1]
    with engine.connect() as conn:
        events = [(what, why) for _, what, why, _ in newest_events(conn, "airalo")][::-1]
    refused = "provider_timeout: read timed out"
    probes = [("probe failed", refused)] * 2
    assert events == [("circuit opened", refused), *probes, ("circuit closed", "a purchase succeeded")]


def test_an_operators_reset_is_noted_with_the_operators_name_and_ends_the_alert(engine: Engine) -> None:
    for _ in range(FAILURES_TO_OPEN):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    with engine.begin() as conn:
        reset_circuit(conn, "airalo", "anna", NOW)
        assert newest_events(conn, "airalo")[0][1:] == ("circuit reset", "closed by hand", "anna")
    assert is_open(engine) == []


def test_only_one_read_decides_about_a_rest_and_only_just_before_its_end(engine: Engine) -> None:
    for _ in range(FAILURES_TO_OPEN):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    late = NOW + timedelta(seconds=55)
    with engine.begin() as conn:
        assert not claim_read_probe(conn, "airalo", NOW)
        assert [claim_read_probe(conn, "airalo", late) for _ in range(2)] == [True, False]
        assert not take_probe(conn, "airalo", NOW + timedelta(seconds=70))  # no customer is the probe meanwhile
        end_read_probe(conn, "airalo", "connect timeout", late, "watch")
    assert circuit(engine)[1] == late + timedelta(seconds=30)  # a read is nobody's order: it may be made more often
    again = late + timedelta(seconds=20)
    with engine.begin() as conn:
        assert claim_read_probe(conn, "airalo", again)
        end_read_probe(conn, "airalo", "", again, "watch")
        assert take_probe(conn, "airalo", again)
    assert not resting(engine, again)


def test_a_read_that_ends_late_does_not_open_a_circuit_that_was_closed_meanwhile(engine: Engine) -> None:
    for _ in range(FAILURES_TO_OPEN):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    with engine.begin() as conn:
        assert claim_read_probe(conn, "airalo", NOW + timedelta(seconds=55))
    note_outcome(engine, "airalo", BOUGHT, NOW)
    with engine.begin() as conn:
        end_read_probe(conn, "airalo", "connect timeout", NOW + timedelta(seconds=56), "watch")
    assert circuit(engine) == (0, None)


@pytest.mark.parametrize(
    "error_type",
    ["out_of_stock", "invalid_product", "price_changed", "rate_limited", "not_bought", "insufficient_balance"],
)
def test_refusals_that_are_no_fault_of_the_provider_do_not_count(engine: Engine, error_type: str) -> None:
    outcome: Outcome = Rejected(ErrorType(error_type), "no")
    assert not any(note_outcome(engine, "airalo", outcome, NOW) for _ in range(9))
    assert circuit(engine) == (0, None)


def test_success_between_failures_starts_the_count_again(engine: Engine) -> None:
    for outcome in [TIMEOUT] * 4 + [BOUGHT] + [TIMEOUT] * 4:
        assert not note_outcome(engine, "airalo", outcome, NOW)
    assert circuit(engine) == (4, None)


def test_operator_can_close_a_circuit(engine: Engine) -> None:
    for _ in range(FAILURES_TO_OPEN):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    with engine.begin() as conn:
        reset_circuit(conn, "airalo")
    assert circuit(engine) == (0, None)


@given(st.integers(1, 200), st.floats(0.1, 3600))
def test_no_window_holds_more_calls_than_the_limit(calls: int, per_seconds: float) -> None:
    limit = RateLimit("order", calls, per_seconds)
    spacing, slack = spacing_seconds(limit)
    arrival, at, sent = 0.0, 0.0, list[float]()
    for _ in range(3 * calls + 1):  # as greedy as the rule allows
        at = max(at, arrival - slack)
        arrival = max(arrival, at) + spacing
        sent.append(at)
    for n in range(len(sent) - calls):
        assert sent[n + calls] - sent[n] >= per_seconds * (1 - 1e-9)


def test_limit_is_shared_and_refuses_what_would_wait_too_long(engine: Engine) -> None:
    limit = RateLimit("order", 8, 60.0)  # two at once, then one each 8.6 s
    limiters = [PostgresLimiter(engine), PostgresLimiter(engine)]
    with ThreadPoolExecutor(8) as pool:
        given_out = list(
            pool.map(lambda n: limiters[n % 2].acquire("airalo:order", limit, patience_seconds=0.0), range(16))
        )
    assert sum(given_out) == 2
    assert PostgresLimiter(engine).acquire("esim_go:order", limit, patience_seconds=0.0)


def test_patient_caller_waits_its_turn(engine: Engine) -> None:
    naps: list[float] = []
    limiter = PostgresLimiter(engine, sleep=naps.append)
    limit = RateLimit("order", 1, 10.0)
    assert limiter.acquire("k", limit, patience_seconds=0.0)
    assert limiter.acquire("k", limit, patience_seconds=15.0)
    assert not limiter.acquire("k", limit, patience_seconds=15.0)  # the next would be due in twenty seconds
    assert len(naps) == 1
    assert 9.0 < naps[0] <= 10.0


def test_acquiring_is_quick(engine: Engine) -> None:
    limiter, limit = PostgresLimiter(engine), RateLimit("*", 100_000, 1.0)
    started = monotonic()
    assert all(limiter.acquire("k", limit, patience_seconds=1.0) for _ in range(50))
    assert monotonic() - started < 5.0


def test_tokens_are_shared_encrypted_and_discarded_only_by_those_who_saw_them_refused(engine: Engine) -> None:
    vault = Vault({1: b"k" * 32}, b"h" * 32)
    one, other = PostgresTokenStore(engine, vault), PostgresTokenStore(engine, vault)
    until = NOW + timedelta(hours=1)
    assert one.get("airalo", NOW) is None
    one.put("airalo", "token-1", until)
    assert other.get("airalo", NOW) == "token-1"
    assert other.get("airalo", until) is None
    other.put("airalo", "token-2", until)
    one.discard("airalo", "token-1")  # replaced already: the new one stays
    assert one.get("airalo", NOW) == "token-2"
    with engine.connect() as conn:
        assert b"token-2" not in bytes(conn.scalars(select(provider_tokens.c.token_enc)).one())
    one.discard("airalo", "token-2")
    assert other.get("airalo", NOW) is None


def test_token_under_a_lost_key_counts_as_none(engine: Engine) -> None:
    PostgresTokenStore(engine, Vault({1: b"k" * 32}, b"h" * 32)).put("airalo", "token", NOW + timedelta(hours=1))
    assert PostgresTokenStore(engine, Vault({2: b"x" * 32}, b"h" * 32)).get("airalo", NOW) is None


def switch(engine: Engine, now: datetime, *, enabled: bool) -> None:
    with engine.begin() as conn:
        set_enabled(conn, "airalo", Operator("mia", "down since noon", now), enabled=enabled)


def test_disabling_a_provider_ends_its_alert_and_enabling_begins_it_where_it_is_still_true(engine: Engine) -> None:
    for _ in range(FAILURES_TO_OPEN):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    assert is_open(engine) == [("circuit_open", "airalo")]
    soon = NOW + timedelta(seconds=30)
    switch(engine, soon, enabled=False)
    assert is_open(engine) == []
    with engine.connect() as conn:
        assert [item for item in attention(conn, soon) if item.kind == "circuit_open"] == []
    switch(engine, soon, enabled=True)
    assert is_open(engine) == [("circuit_open", "airalo")]
    switch(engine, soon, enabled=False)
    switch(engine, NOW + timedelta(seconds=61), enabled=True)  # its rest is over: the next purchase decides
    assert is_open(engine) == []
    note_outcome(engine, "airalo", TIMEOUT, NOW + timedelta(seconds=62))
    assert is_open(engine) == [("circuit_open", "airalo")]


def test_a_purchase_that_fails_after_its_provider_was_disabled_raises_no_alert(engine: Engine) -> None:
    for _ in range(FAILURES_TO_OPEN - 1):
        note_outcome(engine, "airalo", TIMEOUT, NOW)
    switch(engine, NOW, enabled=False)
    note_outcome(engine, "airalo", TIMEOUT, NOW)
    assert is_open(engine) == []
    switch(engine, NOW, enabled=True)
    assert is_open(engine) == [("circuit_open", "airalo")]
