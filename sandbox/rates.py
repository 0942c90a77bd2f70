"""The European Central Bank's daily euro reference rates: its XML, with rates that drift a little from day to day.

The rates of a day depend on the seed and the date alone. As at the bank, weekends repeat Friday's.
"""

import hashlib
from datetime import date, timedelta
from decimal import Decimal
from xml.sax.saxutils import quoteattr

from fastapi import APIRouter
from starlette.responses import Response

from sandbox.pages import render
from sandbox.world import World

# What one euro bought, roughly, in 2026.
BASE_RATES: dict[str, str] = {
    "USD": "1.1634",
    "JPY": "178.52",
    "CZK": "24.312",
    "DKK": "7.4679",
    "GBP": "0.87310",
    "HUF": "383.45",
    "PLN": "4.2410",
    "RON": "5.0895",
    "SEK": "10.9380",
    "CHF": "0.92850",
    "ISK": "146.40",
    "NOK": "11.7040",
    "TRY": "49.1380",
    "AUD": "1.7805",
    "BRL": "6.2074",
    "CAD": "1.6215",
    "CNY": "8.2689",
    "HKD": "9.0436",
    "IDR": "19391.17",
    "ILS": "3.7902",
    "INR": "103.0520",
    "KRW": "1698.73",
    "MXN": "21.3480",
    "MYR": "4.8135",
    "NZD": "2.0572",
    "PHP": "68.270",
    "SGD": "1.5133",
    "THB": "37.650",
    "ZAR": "19.9045",
}
DAILY_DRIFT_PPM = 3_000
MONTHLY_DRIFT_PPM = 12_000
_NAMESPACES = (
    'xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"'
)


def rates_on(day: date, seed: int) -> dict[str, Decimal]:
    """Units of each currency for one euro on a working day, with as many decimals as its base rate."""
    return {currency: _rate(currency, Decimal(base), day, seed) for currency, base in BASE_RATES.items()}


def last_working_day(day: date) -> date:
    """The day itself, or the Friday before a weekend."""
    return day - timedelta(days=max(0, day.weekday() - 4))


def _rate(currency: str, base: Decimal, day: date, seed: int) -> Decimal:
    drift = _swing(f"{seed}:{currency}:{day.isoformat()}", DAILY_DRIFT_PPM)
    drift += _swing(f"{seed}:{currency}:{day.year}-{day.month}", MONTHLY_DRIFT_PPM)
    return (base * (1_000_000 + drift) / 1_000_000).quantize(base)


def _swing(topic: str, most_ppm: int) -> int:
    """A number between -most and +most parts per million that depends on the topic alone."""
    number = int.from_bytes(hashlib.sha256(topic.encode()).digest()[:8], "big")
    return number % (2 * most_ppm + 1) - most_ppm


def document(day: date, seed: int) -> str:
    """The bank's XML for a day."""
    published = last_working_day(day)
    cubes = "\n".join(
        f"\t\t\t<Cube currency={quoteattr(currency)} rate={quoteattr(str(rate))}/>"
        for currency, rate in rates_on(published, seed).items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<gesmes:Envelope {_NAMESPACES}>\n"
        "\t<gesmes:subject>Reference rates</gesmes:subject>\n"
        "\t<gesmes:Sender>\n\t\t<gesmes:name>European Central Bank</gesmes:name>\n\t</gesmes:Sender>\n"
        f"\t<Cube>\n\t\t<Cube time={quoteattr(published.isoformat())}>\n{cubes}\n\t\t</Cube>\n\t</Cube>\n"
        "</gesmes:Envelope>\n"
    )


def build(world: World) -> APIRouter:
    """The daily file, and a page to look at."""
    router = APIRouter(tags=["rates"])

    @router.get("/rates/eurofxref-daily.xml", response_model=None)
    async def daily() -> Response:
        return Response(document(world.now().date(), world.config.seed), media_type="text/xml")

    @router.get("/rates", response_model=None)
    async def page() -> Response:
        day = last_working_day(world.now().date())
        return render("rates.html", day=day.isoformat(), rates=rates_on(day, world.config.seed))

    return router
