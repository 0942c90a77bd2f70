"""The European Central Bank's daily reference rates, read over plain httpx as micro-USD per unit of currency.

The bank quotes units of a currency per euro; a rate here is the dollar quote divided by the currency's quote. One
quotation a day, on working days, at about 16:00 CET.
"""

import re
from decimal import Decimal, InvalidOperation

import httpx
import stamina

from esim.errors import NumnaRoadError
from esim.pricing import Rates, rate_micros
from resources.tls import tls_context

_MOST_BYTES = 1_000_000
_TIMEOUT = httpx.Timeout(20.0, connect=5.0)
_DAY = re.compile(r"""<Cube\s+time=["'](\d{4}-\d{2}-\d{2})["']""")
_QUOTE = re.compile(r"""<Cube\s+currency=["']([A-Z]{3})["']\s+rate=["']([0-9.]{1,20})["']""")


class RatesUnavailable(NumnaRoadError):
    """The reference rates cannot be read."""


class ReferenceRates:
    """Reads the rates from the address the settings name."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._transport = transport

    def fetch(self) -> Rates:
        """Return the newest quotation.

        Raises:
            RatesUnavailable: no answer after three tries, or an answer that is not the bank's format.
        """
        try:
            return parse_rates(self._body())
        except httpx.HTTPError as error:
            raise RatesUnavailable(f"no reference rates from {self._url}: {type(error).__name__} {error}") from error

    def _body(self) -> str:
        for attempt in stamina.retry_context(on=httpx.HTTPError, attempts=3, wait_initial=1.0, wait_max=5.0):
            with attempt, httpx.Client(timeout=_TIMEOUT, transport=self._transport, verify=tls_context()) as client:
                reply = client.get(self._url)
                reply.raise_for_status()
        if len(reply.content) > _MOST_BYTES:
            raise RatesUnavailable(f"the answer of {self._url} is larger than {_MOST_BYTES} bytes")
        return reply.text


def parse_rates(document: str) -> Rates:
    """Read the bank's XML; only its quotation elements are looked at.

    Raises:
        RatesUnavailable: no day, no dollar, or a rate that is zero or no number.
    """
    day = _DAY.search(document)
    try:
        per_euro = {code: Decimal(rate) for code, rate in _QUOTE.findall(document)}
    except InvalidOperation:
        raise RatesUnavailable("a reference rate is not a number") from None
    if day is None or "USD" not in per_euro:
        raise RatesUnavailable("the answer is not the European Central Bank's daily rates (no day or no dollar in it)")
    if any(not rate.is_finite() or rate <= 0 for rate in per_euro.values()):
        raise RatesUnavailable("a reference rate is zero")
    dollar = per_euro.pop("USD")
    micros = {code: rate_micros(dollar / rate) for code, rate in per_euro.items()} | {"EUR": rate_micros(dollar)}
    return Rates({code: value for code, value in sorted(micros.items()) if value > 0}, day[1])
