"""What the cases of the provider contract share: fixtures, one case per name a wire gives, buying and polling."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from esim.ports import Provider
from esim.purchase import (
    Outcome,
    Pending,
    PurchaseRequest,
    Rejected,
)
from tests.resources.providers.wire import Stage, Wire

NAMED_CASES = {
    "refusal": "refusals",
    "unclear": "unclear",
    "accepted": "accepted",
    "delivered": "delivered",
    "status_answer": "status_answers",
    "spoil": "spoilt",
}


def buy(provider: Provider, request: PurchaseRequest) -> tuple[Outcome, dict[str, Any]]:
    """Prepare and purchase as the drain does; return the outcome and the evidence that would have been committed."""
    prepared = provider.prepare(request)
    if isinstance(prepared, Rejected):
        return prepared, {}
    evidence = json.loads(json.dumps(dict(prepared.evidence)))
    return provider.purchase(request, evidence), evidence


def finish(provider: Provider, outcome: Outcome, request: PurchaseRequest, clock: Any) -> Outcome:
    """Poll an accepted order until it is decided, five times at most."""
    for _ in range(5):
        if not isinstance(outcome, Pending):
            break
        clock.pass_seconds(outcome.poll_after_seconds)
        outcome = provider.order_status(outcome.provider_order_id, request)
    return outcome


class ContractBase:
    """Fixtures and parametrisation of the suite."""

    wire_type: type[Wire]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one case per name that the wire gives."""
        for argument, source in NAMED_CASES.items():
            if argument in metafunc.fixturenames:
                cases = getattr(self.wire_type(), source)()
                metafunc.parametrize(argument, cases.values(), ids=cases.keys())

    @pytest.fixture
    def wire(self) -> Wire:
        return self.wire_type()

    @pytest.fixture
    def stage(self, wire: Wire) -> Stage:
        return Stage(wire)

    @pytest.fixture
    def provider(self, wire: Wire, stage: Stage) -> Iterator[Provider]:
        provider = wire.build(stage)
        yield provider
        provider.close()
