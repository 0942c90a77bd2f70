"""The order store in the API's metrics: what monitoring sees when no daemon is left to tell."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from resources.db.watch_figures import WATCH, beat
from tests.api.serving import ServedApi
from tests.resources.db.shop import paid_order


def test_metrics_tell_how_the_order_store_is_doing_without_a_daemon(api: ServedApi, engine: Engine) -> None:
    paid_order(engine, now=datetime.now(UTC) - timedelta(seconds=90))
    with engine.begin() as conn:
        conn.execute(text("update providers set open_until = now() + interval '1 hour' where slug = 'airalo'"))
        beat(conn, WATCH, datetime.now(UTC) - timedelta(seconds=300))
    shown = dict(line.rsplit(" ", 1) for line in api.client.get("/metrics").text.splitlines() if line[0] != "#")
    assert shown["numnaroad_store_waiting_units"] == "1.0"
    assert 90 <= float(shown["numnaroad_store_waiting_seconds"]) < 120
    assert shown["numnaroad_store_open_circuits"] == "1.0"
    assert 300 <= float(shown["numnaroad_store_watch_age_seconds"]) < 330


def test_scrapes_within_five_seconds_ask_the_store_once(api: ServedApi, engine: Engine) -> None:
    assert "numnaroad_store_due_refunds 0.0" in api.client.get("/metrics").text
    first = api.shop.store_figures()
    paid_order(engine)
    assert api.shop.store_figures() is first
