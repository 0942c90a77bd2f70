"""Which rates are believed: what moved for real is after some days, a slip never within a month."""

import httpx
import pytest
from sqlalchemy import Engine, text

from assets.reference_rates import lake_rows, update_rates
from resources.db.reference_rates import newest_rates
from resources.rates import ReferenceRates
from tests.assets.catalogue_builders import rates_source


def quoting(day: str, yen: str) -> ReferenceRates:
    """The central bank, quoting dollars as ever and yen as told."""
    body = (
        f"<Cube time='{day}'><Cube currency='USD' rate='1.0865'/><Cube currency='GBP' rate='0.8548'/>"
        f"<Cube currency='JPY' rate='{yen}'/></Cube>"
    )
    return ReferenceRates("http://rates.test/daily.xml", httpx.MockTransport(lambda _: httpx.Response(200, text=body)))


@pytest.mark.parametrize(
    ("day", "yen", "believed"),
    [
        ("2026-03-02", "132.80", True),  # the yen rises by 25 % on the same day
        ("2026-03-02", "132.70", False),
        ("2026-03-03", "215.70", True),  # it falls, by 30 % seen from the other side, after a day
        ("2026-03-03", "215.80", False),
        ("2026-03-03", "248.00", False),  # it falls to two thirds: believed when it stays there for five days
        ("2026-03-07", "248.00", True),
        ("2026-04-02", "16593", False),
        ("2026-04-02", "1.6593", False),
    ],
)
def test_how_far_a_rate_may_move_grows_with_the_days(engine: Engine, day: str, yen: str, believed: bool) -> None:
    update_rates(engine, rates_source("2026-03-02"))
    update = update_rates(engine, quoting(day, yen))
    assert update.refused == (() if believed else ("JPY",))


def test_operations_hear_once_per_refused_currency_and_day(engine: Engine) -> None:
    update_rates(engine, rates_source("2026-03-02"))
    for day in ("2026-03-03", "2026-03-03", "2026-03-04"):
        update_rates(engine, quoting(day, "1.6593"))
    with engine.connect() as conn:
        told = conn.execute(text("select payload ->> 'text' from outbox order by outbox_id")).scalars().all()
    assert len(told) == 2
    assert told[0].startswith(
        "The reference rate of JPY for 2026-03-03 is not believed: 654794 micro-USD after 6548 on"
    )


def test_only_what_was_quoted_that_day_is_stamped_with_it(engine: Engine) -> None:
    update_rates(engine, rates_source("2026-03-02"))
    update = update_rates(engine, quoting("2026-03-03", "1.6593"))
    assert lake_rows(update.quoted).select("currency").to_series().to_list() == ["EUR", "GBP"]
    assert update.rates.usd_micros["JPY"] == 6548
    with engine.connect() as conn:
        assert {code: day.day for code, day in newest_rates(conn).days.items()} == {"EUR": 3, "GBP": 3, "JPY": 2}
