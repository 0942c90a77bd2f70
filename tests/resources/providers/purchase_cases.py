"""Contract cases: a purchase is sent once, ends in one outcome, and a lost answer is looked up."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from esim.money import Cost
from esim.ports import Provider, RateLimit
from esim.purchase import (
    ErrorType,
    Pending,
    Provisioned,
    Rejected,
    Unknown,
)
from tests.resources.providers.contract_base import ContractBase, buy, finish
from tests.resources.providers.wire import HTML, Answer, Stage, Wire, anything, fails, says

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
CANNOT_ARRIVE = (*NEVER_SENT, httpx.UnsupportedProtocol, httpx.ProxyError)
MAY_HAVE_ARRIVED = (
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.RemoteProtocolError,
)
UNREADABLE = {
    "html": HTML,
    "half a document": b'{"data": {"id": 5838',
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "text": b'"done"',
    "an empty object": b"{}",
}


def _all_errors(base: type[httpx.TransportError]) -> list[type[httpx.TransportError]]:
    return [base, *(error for sub in base.__subclasses__() for error in _all_errors(sub))]


def _disturbing(wire: Wire, trouble: type[httpx.TransportError] | int, place: int) -> Answer:
    """Answer as the provider does but for the request at `place`: it arrives (if it can), and its answer is trouble."""
    asked = 0

    def act(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked - 1 != place:
            return wire.answer(request)
        if isinstance(trouble, int):
            wire.answer(request)
            return says({"message": "Server Error"}, trouble)(request)
        if not issubclass(trouble, CANNOT_ARRIVE):
            wire.answer(request)
        raise trouble("as if on the line", request=request)

    return act


class NoSlot:
    """A limiter whose slots are all taken."""

    def acquire(self, key: str, limit: RateLimit, *, patience_seconds: float) -> bool:
        return False


class PurchaseCases(ContractBase):
    """A purchase is sent once and ends in exactly one outcome."""

    def test_a_purchase_ends_with_the_esim(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        outcome, _ = buy(provider, wire.request)
        outcome = finish(provider, outcome, wire.request, wire.clock)
        assert isinstance(outcome, Provisioned)
        assert outcome.profile.lpa.startswith("LPA:1$")
        assert outcome.profile.lpa.count("$") == 2
        assert "://" not in outcome.profile.smdp_address
        assert outcome.profile.iccid.isdecimal()
        assert outcome.provider_order_id
        assert len(wire.sold) == 1
        assert stage.sent(wire.spends) == 1

    @pytest.mark.parametrize("error", NEVER_SENT)
    def test_what_was_never_sent_is_rejected(
        self, provider: Provider, wire: Wire, stage: Stage, error: type[httpx.TransportError]
    ) -> None:
        stage.when(wire.spends, fails(error))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.NETWORK_ERROR
        assert outcome.retryable
        assert stage.sent(wire.spends) == 1

    @pytest.mark.parametrize("error", MAY_HAVE_ARRIVED)
    def test_a_lost_answer_is_unknown_and_not_sent_again(
        self, provider: Provider, wire: Wire, stage: Stage, error: type[httpx.TransportError]
    ) -> None:
        stage.when(wire.spends, fails(error))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        assert stage.sent(wire.spends) == 1

    @pytest.mark.parametrize("status", [500, 502, 503, 504, 524])
    def test_a_server_error_is_unknown_and_not_sent_again(
        self, provider: Provider, wire: Wire, stage: Stage, status: int
    ) -> None:
        stage.when(wire.spends, says({"message": "Server Error"}, status, {"Retry-After": "5"}))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        assert stage.sent(wire.spends) == 1

    @pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
    def test_an_answer_that_cannot_be_read_is_unknown(
        self, provider: Provider, wire: Wire, stage: Stage, body: bytes
    ) -> None:
        stage.when(wire.spends, says(body))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        assert stage.sent(wire.spends) == 1

    @pytest.mark.parametrize("status", [200, 400, 422, 500])
    def test_an_outcome_can_be_written_whatever_the_provider_says(
        self, provider: Provider, wire: Wire, stage: Stage, status: int
    ) -> None:
        odd = b'{"message": "no\\ud800 \\u0000", "status": false, "success": false, "errorCode": "\\udfff"}'
        stage.when(wire.spends, says(odd, status))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected | Unknown)
        assert "\x00" not in outcome.message
        assert outcome.message.encode()

    def test_no_error_and_no_server_error_is_a_refusal_of_what_arrived(self) -> None:
        """Every error httpx has and every 5xx, on every request of a purchase: what was sold is never `Rejected`."""
        troubles: list[type[httpx.TransportError] | int] = [*_all_errors(httpx.TransportError), *range(500, 600)]
        for trouble in troubles:
            for place in range(3):
                wire = self.wire_type()
                stage = Stage(wire)
                provider = wire.build(stage)
                prepared = provider.prepare(wire.request)
                assert not isinstance(prepared, Rejected)
                evidence = json.loads(json.dumps(dict(prepared.evidence)))
                stage.when(anything, _disturbing(wire, trouble, place))
                outcome = provider.purchase(wire.request, evidence)
                provider.close()
                assert not (isinstance(outcome, Rejected) and wire.sold), (trouble, place, outcome)

    def test_a_clear_refusal_is_rejected(self, provider: Provider, wire: Wire, stage: Stage, refusal: Any) -> None:
        stage.when(wire.spends, refusal.answer)
        if refusal.on is not None:
            stage.when(refusal.on, refusal.answer)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is refusal.error_type
        assert stage.sent(wire.spends) <= 1
        assert not wire.sold

    def test_an_answer_that_proves_nothing_is_unknown(
        self, provider: Provider, wire: Wire, stage: Stage, unclear: Any
    ) -> None:
        stage.when(wire.spends, unclear)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        assert stage.sent(wire.spends) == 1

    def test_an_accepted_order_is_pending(self, provider: Provider, wire: Wire, stage: Stage, accepted: Any) -> None:
        stage.when(wire.spends, accepted)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Pending)
        assert stage.sent(wire.spends) == 1

    def test_odd_types_are_still_delivered(self, provider: Provider, wire: Wire, stage: Stage, delivered: Any) -> None:
        stage.when(wire.spends, delivered)
        outcome, _ = buy(provider, wire.request)
        assert isinstance(finish(provider, outcome, wire.request, wire.clock), Provisioned)
        assert stage.sent(wire.spends) == 1

    def test_an_order_reports_its_state(self, provider: Provider, wire: Wire, stage: Stage, status_answer: Any) -> None:
        answer, expected = status_answer
        stage.when(anything, answer)
        assert isinstance(provider.order_status("583801", wire.request), expected)

    def test_an_order_that_cannot_be_read_is_neither_delivered_nor_refused(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        stage.when(anything, fails(httpx.ReadTimeout))
        assert isinstance(provider.order_status("583801", wire.request), Pending | Unknown)

    def test_a_price_above_the_ceiling_buys_nothing(self, provider: Provider, wire: Wire) -> None:
        ceiling = Cost(Decimal("0.01"), wire.request.cost_ceiling.currency)
        outcome, _ = buy(provider, replace(wire.request, cost_ceiling=ceiling))
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.PRICE_CHANGED
        assert not wire.sold

    def test_refused_credentials_are_rejected(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(anything, lambda _: wire.unauthorised())
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.error_type is ErrorType.AUTH_FAILED
        assert not wire.sold

    def test_a_provider_that_is_down_before_the_purchase_is_rejected(
        self, provider: Provider, wire: Wire, stage: Stage
    ) -> None:
        stage.when(anything, fails(httpx.ConnectError))
        outcome, _ = buy(provider, wire.request)
        assert isinstance(outcome, Rejected)
        assert outcome.retryable

    def test_a_rate_limit_that_is_used_up_sells_nothing_twice(self, wire: Wire, stage: Stage) -> None:
        outcome, _ = buy(wire.build(stage, limiter=NoSlot()), wire.request)
        assert isinstance(outcome, Rejected) == (not wire.sold)
        assert len(wire.sold) <= 1

    def test_a_purchase_without_evidence_does_not_raise(self, provider: Provider, wire: Wire) -> None:
        assert isinstance(provider.purchase(wire.request, {}), Provisioned | Pending | Rejected | Unknown)

    def test_current_cost_is_what_the_request_expects(self, provider: Provider, wire: Wire) -> None:
        assert provider.current_cost(wire.request.provider_package_id, wire.request.hints) == wire.request.expected_cost


class ResolveCases(ContractBase):
    """A lost answer is looked up; only the settle time proves absence."""

    def after(self, provider: Provider, wire: Wire, seconds: float) -> datetime:
        wire.clock.pass_seconds(seconds)
        return wire.clock()

    def test_a_purchase_whose_answer_was_lost_is_found(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.lose_answer(wire.spends)
        wire.other_sales()
        outcome, evidence = buy(provider, wire.request)
        assert isinstance(outcome, Unknown)
        settle = provider.capabilities.settle_seconds
        for _ in range(4):
            outcome = provider.resolve(wire.request, evidence, self.after(provider, wire, settle / 4 + 1))
            if not isinstance(outcome, Unknown):
                break
        outcome = finish(provider, outcome, wire.request, wire.clock)
        assert isinstance(outcome, Provisioned)
        assert len(wire.sold) == stage.sent(wire.spends) == 1

    def test_absence_is_proven_only_after_the_settle_time(self, provider: Provider, wire: Wire, stage: Stage) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        wire.other_sales()
        settle = provider.capabilities.settle_seconds
        assert isinstance(provider.resolve(wire.request, evidence, self.after(provider, wire, settle / 2)), Unknown)
        # The time counts from the sending, which may be long after the intent.
        waited = replace(wire.request, sent_at=wire.clock())
        assert isinstance(provider.resolve(waited, evidence, self.after(provider, wire, settle - 1)), Unknown)
        late = provider.resolve(waited, evidence, self.after(provider, wire, 2))
        assert isinstance(late, Unknown if wire.absent_outcome is None else Rejected)
        if isinstance(late, Rejected):
            assert late.error_type is wire.absent_outcome
        assert stage.sent(wire.spends) == 1

    @pytest.mark.parametrize(
        "trouble",
        [fails(httpx.ReadTimeout), fails(httpx.ConnectError), says({}, 500), says(HTML), says(b'{"data": ['), says({})],
        ids=["timeout", "unreachable", "500", "html", "half a document", "an empty object"],
    )
    def test_a_look_up_that_fails_proves_nothing(
        self, provider: Provider, wire: Wire, stage: Stage, trouble: Callable[[httpx.Request], httpx.Response]
    ) -> None:
        stage.when(wire.spends, fails(httpx.ReadTimeout))
        _, evidence = buy(provider, wire.request)
        stage.when(anything, trouble)
        late = self.after(provider, wire, provider.capabilities.settle_seconds * 3)
        assert isinstance(provider.resolve(wire.request, evidence, late), Unknown)
        assert stage.sent(wire.spends) == 1
