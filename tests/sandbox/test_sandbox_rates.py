"""The sandbox's reference rates: the bank's XML, steady for a seed and a day."""

import xml.etree.ElementTree as ET
from datetime import date, timedelta
from decimal import Decimal

import httpx
from hypothesis import given
from hypothesis import strategies as st

from sandbox.config import SandboxConfig
from sandbox.rates import BASE_RATES, document, last_working_day, rates_on
from sandbox.serve import served

CUBE = "{http://www.ecb.int/vocabulary/2002-08-01/eurofxref}Cube"
DAYS = st.dates(date(2024, 1, 1), date(2030, 12, 31))


def read(xml: str) -> tuple[str, dict[str, Decimal]]:
    day = ET.fromstring(xml).find(f"{CUBE}/{CUBE}")
    assert day is not None
    return day.attrib["time"], {cube.attrib["currency"]: Decimal(cube.attrib["rate"]) for cube in day}


@given(DAYS, st.integers(0, 10_000))
def test_rates_follow_from_seed_and_day_and_stay_near_their_base(day: date, seed: int) -> None:
    told, rates = read(document(day, seed))
    assert date.fromisoformat(told) == last_working_day(day)
    assert rates == rates_on(last_working_day(day), seed)
    assert len(rates) == 29
    for currency, rate in rates.items():
        assert abs(rate / Decimal(BASE_RATES[currency]) - 1) < Decimal("0.02")


@given(DAYS)
def test_weekends_repeat_friday(day: date) -> None:
    saturday = day + timedelta(days=5 - day.weekday())
    friday = saturday - timedelta(days=1)
    assert document(saturday, 1) == document(saturday + timedelta(days=1), 1) == document(friday, 1)


def test_rates_move_from_day_to_day_and_by_seed() -> None:
    monday = date(2026, 11, 16)
    assert rates_on(monday, 1) != rates_on(monday + timedelta(days=1), 1)
    assert rates_on(monday, 1) != rates_on(monday, 2)


def test_daily_file_and_page_are_served() -> None:
    with served(SandboxConfig(plans_per_provider=10)) as sandbox, httpx.Client(base_url=sandbox.base_url) as web:
        answer = web.get("/rates/eurofxref-daily.xml")
        assert answer.headers["content-type"].startswith("text/xml")
        day, rates = read(answer.text)
        page = web.get("/rates").text
        assert day in page
        assert str(rates["USD"]) in page
