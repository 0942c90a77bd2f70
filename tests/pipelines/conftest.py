"""A shop to order from: the store, two providers, carriers that remember, and a clock set by hand."""

from collections.abc import Callable, Iterator
from typing import cast

import httpx
import pytest
from sqlalchemy import Engine

from esim.ports import PaymentGateway
from pipelines.drain import Drain, DrainLimits, DrainReport
from resources.order_operations import OrderTools
from resources.settings import Settings
from sandbox.serve import Served
from tests.pipelines.actors import HandClock, RefundingGateway, RememberingMailer, RememberingNotifier, ScriptedProvider
from tests.pipelines.scripted_gateway import Account
from tests.resources.db.shop import NOW, OfferSpec, open_shop


class Shop:
    """Everything an order test touches."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.engine = engine
        self.clock = HandClock(NOW)
        self.cheap = ScriptedProvider("airalo")
        self.dear = ScriptedProvider("esim_go")
        self.mailer, self.notifier, self.gateway = RememberingMailer(), RememberingNotifier(), RefundingGateway()
        self.settings = settings
        self.tools = self.tools_with()

    def tools_with(self, **changes: object) -> OrderTools:
        """Tools over this shop's parts, with changed settings."""
        return OrderTools(
            self.settings.model_copy(update={"drain_workers": 4, **changes}),
            providers={provider.slug: provider for provider in (self.cheap, self.dear)},
            gateway=cast(PaymentGateway, self.gateway),
            mailer=self.mailer,
            notifier=self.notifier,
            clock=self.clock,
        )

    def drain(
        self, idle_seconds: float = 0.0, max_seconds: float = 20.0, tools: OrderTools | None = None
    ) -> DrainReport:
        """Run one drain to its end."""
        return Drain(tools or self.tools, DrainLimits(4, idle_seconds, max_seconds)).run()

    @property
    def sold(self) -> int:
        """How many eSIMs the providers sold."""
        return self.cheap.purchases + self.dear.purchases


@pytest.fixture
def shop(settings: Settings, engine: Engine) -> Iterator[Shop]:
    """A shop with one package that two providers sell: airalo at 2.00, esim_go at 3.00, for 4.99."""
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "3.00")])
    shop = Shop(settings, engine)
    yield shop
    shop.tools.close()


class Source:
    """Hands a shop's tools to Dagster."""

    def __init__(self, tools: OrderTools) -> None:
        self._tools = tools

    def tools(self) -> OrderTools:
        return self._tools


@pytest.fixture
def source(shop: Shop) -> Source:
    """The shop's tools as the Dagster resource hands them over."""
    return Source(shop.tools)


Rows = Callable[[str], list[dict[str, object]]]


@pytest.fixture
def account() -> Account:
    """What the payment service has on its books."""
    return Account()


@pytest.fixture
def tools(shop: Shop, account: Account) -> OrderTools:
    """The shop's tools with that payment service."""
    tools = shop.tools_with()
    tools._gateway = cast(PaymentGateway, account)
    return tools


@pytest.fixture
def rows(engine: Engine) -> Callable[[str], list[dict[str, object]]]:
    """Read rows with plain SQL."""
    from sqlalchemy import text

    def read(statement: str) -> list[dict[str, object]]:
        with engine.connect() as conn:
            return [dict(row) for row in conn.execute(text(statement)).mappings()]

    return read


@pytest.fixture
def sandbox(running: Served) -> Iterator[httpx.Client]:
    """A client for the control routes of the module's sandbox, which has just been reset."""
    with httpx.Client(base_url=running.base_url, timeout=10) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client
