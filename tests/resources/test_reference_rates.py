"""The European Central Bank's document, as it is and as it should not be."""

from collections.abc import Iterator

import httpx
import pytest
import stamina

from resources.rates import RatesUnavailable, ReferenceRates, parse_rates

DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
 xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
<gesmes:subject>Reference rates</gesmes:subject>
<Cube><Cube time='2026-03-02'><Cube currency='USD' rate='1.0865'/><Cube currency='JPY' rate='165.93'/>
<Cube currency='IDR' rate='17650.42'/></Cube></Cube></gesmes:Envelope>"""


@pytest.fixture(autouse=True)
def _retries_without_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


def test_rates_are_dollars_per_unit_in_micros() -> None:
    rates = parse_rates(DOCUMENT)
    assert (rates.quoted_on, dict(rates.usd_micros)) == ("2026-03-02", {"EUR": 1_086_500, "IDR": 62, "JPY": 6_548})


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<html>maintenance</html>",
        DOCUMENT.replace("USD", "USX"),
        DOCUMENT.replace("time='2026-03-02'", ""),
        DOCUMENT.replace("1.0865", "0.0"),
        DOCUMENT.replace("1.0865", "1.08.65"),
    ],
)
def test_another_document_is_refused(document: str) -> None:
    with pytest.raises(RatesUnavailable):
        parse_rates(document)


def test_a_passing_failure_is_tried_again() -> None:
    answers = iter([httpx.Response(503), httpx.Response(200, text=DOCUMENT)])
    source = ReferenceRates("http://rates.test", httpx.MockTransport(lambda _request: next(answers)))
    assert source.fetch().quoted_on == "2026-03-02"


def test_a_source_that_stays_away_is_named() -> None:
    source = ReferenceRates("http://rates.test/x.xml", httpx.MockTransport(lambda _request: httpx.Response(503)))
    with pytest.raises(RatesUnavailable, match=r"no reference rates from http://rates\.test/x\.xml"):
        source.fetch()


def test_an_endless_document_is_refused() -> None:
    source = ReferenceRates(
        "http://rates.test", httpx.MockTransport(lambda _request: httpx.Response(200, text=DOCUMENT + " " * 10**6))
    )
    with pytest.raises(RatesUnavailable, match="larger than"):
        source.fetch()
