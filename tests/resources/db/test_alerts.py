"""Alerts have a beginning and an end, and each is told once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy import Engine, text

from resources.db.alerts import AlertKind, end_alert, open_alerts, raise_alert, watch, watch_together
from tests.resources.db.shop import NOW

KIND = AlertKind.SLOW_DRAIN


def told(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        return list(
            conn.scalars(text("select payload ->> 'text' from outbox where channel = 'slack' order by outbox_id"))
        )


def is_open(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as conn:
        return [(alert.kind, alert.subject) for alert in open_alerts(conn)]


def test_an_alert_opens_once_is_not_repeated_closes_and_may_open_again(engine: Engine) -> None:
    for seconds in (0, 10, 20):
        with engine.begin() as conn:
            assert raise_alert(conn, KIND, "", f"waits {seconds}", NOW + timedelta(seconds=seconds)) is (seconds == 0)
    assert is_open(engine) == [("slow_drain", "")]
    for expected in (True, False):
        with engine.begin() as conn:
            assert end_alert(conn, KIND, "", "over", NOW + timedelta(seconds=30)) is expected
    assert is_open(engine) == []
    with engine.begin() as conn:
        assert raise_alert(conn, KIND, "", "waits again", NOW + timedelta(seconds=30))
    assert told(engine) == ["waits 0", "over", "waits again"]


def test_many_who_notice_at_once_tell_once(engine: Engine) -> None:
    def notice(n: int) -> bool:
        with engine.begin() as conn:
            return raise_alert(conn, AlertKind.CIRCUIT_OPEN, "airalo", f"noticed by {n}", NOW)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(notice, range(8))) == 1
    assert len(told(engine)) == 1


def test_a_rolled_back_change_tells_nobody(engine: Engine) -> None:
    with engine.connect() as conn:
        raise_alert(conn, KIND, "", "never committed", NOW)
        conn.rollback()
    assert (told(engine), is_open(engine)) == ([], [])


def test_watching_begins_what_is_new_and_ends_what_is_gone(engine: Engine) -> None:
    kind = AlertKind.SENSOR_SILENT
    for present in ({"a": "a is silent", "b": "b is silent"}, {"b": "b is still silent", "c": "c is silent"}, {}):
        with engine.begin() as conn:
            watch(conn, kind, present, NOW, "Evaluated again")
    again = [f"Evaluated again: {name}" for name in "abc"]
    assert told(engine) == ["a is silent", "b is silent", again[0], "c is silent", *again[1:]]
    assert is_open(engine) == []


def test_many_subjects_of_a_group_are_one_note(engine: Engine) -> None:
    low = {f"airalo:{n}": f"airalo:{n} (3 left)" for n in range(500)}
    for _ in range(2):
        with engine.begin() as conn:
            watch_together(conn, AlertKind.LOW_STOCK, low, (), NOW, "airalo")
    [note] = told(engine)
    assert note.startswith("airalo: airalo:0 (3 left), ")
    assert note.endswith(" and 490 more.")
    assert len(is_open(engine)) == 500
    with engine.begin() as conn:
        begun = watch_together(conn, AlertKind.LOW_STOCK, {**low, "airalo:x": "x"}, list(low)[1:], NOW, "airalo")
    assert "airalo:x" in begun
