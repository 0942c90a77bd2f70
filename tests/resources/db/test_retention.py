"""Retention deletes what is old and over, in batches, and never what an order still needs."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from resources.db.alerts import AlertKind, end_alert, raise_alert
from resources.db.outbox import enqueue
from resources.db.provider_events import Event, note_event
from resources.db.retention import Keep, forget
from tests.resources.db.shop import NOW, paid_order

OLD = NOW - timedelta(days=100)
KEPT_TABLES = ("orders", "order_items", "esims", "order_events", "ledger_entries")


def change(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as conn:
        conn.execute(text(statement), values)


def left(engine: Engine, query: str) -> list[str]:
    with engine.connect() as conn:
        return sorted(map(str, conn.scalars(text(query))))


def test_notices_without_an_order_go_when_they_were_sent_long_ago_and_what_orders_were_told_stays(
    engine: Engine,
) -> None:
    order_id = paid_order(engine, now=OLD)
    for key, of, sent in (("alert", None, OLD), ("fresh", None, NOW), ("unsent", None, None), ("told", order_id, OLD)):
        with engine.begin() as conn:
            enqueue(conn, key=key, channel="slack", kind="k", order_id=of)
        at = sent or OLD
        change(
            engine, "update outbox set created_at = :at, sent_at = :sent where key = :key", at=at, sent=sent, key=key
        )
    assert forget(engine, Keep(), NOW)["outbox"] == 1
    assert left(engine, "select key from outbox") == ["fresh", "told", "unsent"]


def test_payment_events_are_kept_as_long_as_they_may_be_sent_again_and_open_work_for_ever(engine: Engine) -> None:
    event = "insert into inbox_events (source, event_id, type, handled, work, worked_at, received_at)"
    for name, work, worked, days in (
        ("a replay", None, False, 89),
        ("too old", None, False, 91),
        ("worked", "{}", True, 91),
        ("open work", "{}", False, 400),
    ):
        change(
            engine,
            f"{event} values ('stripe', :id, 't', 'h', cast(:work as jsonb), :worked, :at)",
            id=name,
            work=work,
            worked=NOW if worked else None,
            at=NOW - timedelta(days=days),
        )
    assert forget(engine, Keep(), NOW)["inbox_events"] == 2
    assert left(engine, "select event_id from inbox_events") == ["a replay", "open work"]


def test_drains_answers_limits_and_tokens_go_when_nobody_can_want_them(engine: Engine) -> None:
    drain = (
        "insert into drains (drain_id, capacity, started_at, heartbeat_at, ended_at) values (:id, 1, :at, :at, :end)"
    )
    for name, days, ended in (("ended", 8, True), ("killed", 8, False), ("recent", 6, True), ("alive", 0, False)):
        at = NOW - timedelta(days=days)
        change(engine, drain, id=name, at=at, end=at if ended else None)
    answer = "insert into idempotency_keys (scope, key, body_hash, created_at) values ('checkout', :key, '', :at)"
    change(engine, answer, key="old", at=NOW - timedelta(days=8))
    change(engine, answer, key="new", at=NOW - timedelta(days=6))
    limit = "insert into rate_limits values (:key, :at)"
    change(engine, limit, key="idle", at=NOW - timedelta(days=2))
    change(engine, limit, key="used", at=NOW)
    change(engine, "insert into offer_outages values ('o', :at, :at, 'sold out')", at=OLD)
    gone = forget(engine, Keep(), NOW)
    assert (gone["drains"], gone["idempotency_keys"], gone["rate_limits"], gone["offer_outages"]) == (2, 1, 1, 1)
    assert left(engine, "select drain_id from drains") == ["alive", "recent"]
    assert left(engine, "select key from idempotency_keys") == ["new"]
    assert left(engine, "select key from rate_limits") == ["used"]


def test_alerts_that_are_over_and_providers_history_go_and_open_alerts_stay(engine: Engine) -> None:
    with engine.begin() as conn:
        for subject in ("over", "open"):
            raise_alert(conn, AlertKind.LOW_BALANCE, subject, "low", OLD)
        end_alert(conn, AlertKind.LOW_BALANCE, "over", "fine", OLD)
        note_event(conn, "airalo", Event.OPENED, "old", OLD)
        note_event(conn, "airalo", Event.OPENED, "new", NOW)
    gone = forget(engine, Keep(), NOW)
    assert (gone["alerts"], gone["provider_events"]) == (1, 1)
    assert left(engine, "select subject from alerts") == ["open"]
    assert left(engine, "select reason from provider_events") == ["new"]


@pytest.mark.parametrize("rows", [0, 9, 10, 25])
def test_many_rows_go_in_batches_and_a_second_run_finds_nothing(engine: Engine, rows: int) -> None:
    fill = "insert into rate_limits select 'k' || n, :at from generate_series(1, :rows) n"
    change(engine, fill, at=OLD, rows=rows)
    assert forget(engine, Keep(), NOW, batch=10)["rate_limits"] == rows
    assert set(forget(engine, Keep(), NOW, batch=10).values()) == {0}


def test_rows_somebody_holds_are_left_and_nobody_waits(engine: Engine) -> None:
    change(engine, "insert into rate_limits values ('held', :at), ('free', :at)", at=OLD)
    with engine.begin() as conn:
        conn.execute(text("select * from rate_limits where key = 'held' for update"))
        assert forget(engine, Keep(), NOW)["rate_limits"] == 1
    assert forget(engine, Keep(), NOW)["rate_limits"] == 1


def test_orders_their_events_and_the_ledger_are_kept_whatever_their_age(engine: Engine) -> None:
    paid_order(engine, units=2, now=NOW - timedelta(days=4000))
    count = " union all ".join(f"select count(*) from {table}" for table in KEPT_TABLES)
    before = left(engine, count)
    forget(engine, Keep(1, 1, 1, 1), NOW)
    assert left(engine, count) == before
    assert "0" not in before
