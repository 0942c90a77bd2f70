"""Offers, providers and rates for catalogue tests: providers hand out what they are told, page by page."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import httpx

from esim.catalogue import Allowance, CataloguePage, OfferKind, ProviderOffer, RejectedPlan
from esim.fakes import FakeProvider
from esim.geography import COUNTRIES, Coverage
from esim.money import Cost
from resources.rates import ReferenceRates

SLUGS = ("airalo", "esim_access", "esim_go", "mobimatter", "esim_card")
RATES_XML = """<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
 xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"><Cube><Cube time='{day}'>
<Cube currency='USD' rate='{usd}'/><Cube currency='JPY' rate='165.93'/><Cube currency='GBP' rate='0.8548'/>
</Cube></Cube></gesmes:Envelope>"""
_PLACES = tuple(sorted(COUNTRIES))


class StreamedProvider(FakeProvider):
    """A fake provider whose catalogue comes in pages of 50, with rejects, and may break off after some pages."""

    def __init__(self, slug: str, offers: Sequence[ProviderOffer] = ()) -> None:
        super().__init__(slug, offers)
        self.rejected: list[RejectedPlan] = []
        self.breaks_with: Callable[[], Exception] | None = None
        self.endless = False

    def catalogue(self) -> Iterator[CataloguePage]:
        """Stream the offers page by page; then break, or never end, where told to."""
        self._up()
        pages = max(1, -(-len(self.offers) // 50))
        for page in range(pages):
            rejects = tuple(self.rejected) if page == 0 else ()
            yield CataloguePage(tuple(self.offers[page * 50 : page * 50 + 50]), rejects, page + 1, pages)
        while self.endless:
            yield CataloguePage((), (), 1, None)
        if self.breaks_with is not None:
            raise self.breaks_with()


def offer(provider: str, cost: str | Cost, *, number: str = "1", **changes: Any) -> ProviderOffer:
    """A plan for Japan, 5 GB, 30 days, unless told otherwise."""
    values: dict[str, Any] = {
        "provider": provider,
        "provider_package_id": number,
        "name": "Japan 5 GB",
        "kind": OfferKind.PLAN,
        "coverage": Coverage(("JP",)),
        "allowance": Allowance.TOTAL,
        "data_mb": 5000,
        "validity_days": 30,
        "cost": cost if isinstance(cost, Cost) else Cost(Decimal(cost), "USD"),
        **changes,
    }
    return ProviderOffer(**values)


def plans(provider: str, count: int, *, factor: str = "1") -> list[ProviderOffer]:
    """`count` plans of USD 2 to 11 times `factor`, ten sizes per country."""
    return [
        offer(
            provider,
            str(Decimal(2 + n % 10) * Decimal(factor)),
            number=f"p{n}",
            coverage=Coverage((_PLACES[n // 10],)),
            data_mb=1000 * (1 + n % 10),
        )
        for n in range(count)
    ]


def rates_source(day: str = "2026-03-02", usd: str = "1.0865", status: int = 200) -> ReferenceRates:
    """The central bank, answering with one quotation."""

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, text=RATES_XML.format(day=day, usd=usd))

    return ReferenceRates("http://rates.test/daily.xml", httpx.MockTransport(answer))
