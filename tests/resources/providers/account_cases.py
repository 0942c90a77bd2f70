"""Contract cases: what happens after the sale, webhooks, and that nothing personal leaks."""

import json
import logging
from contextlib import suppress
from urllib.parse import quote

import pytest

from esim.catalogue import OfferKind
from esim.errors import ProviderError, WebhookRejected
from esim.ports import Provider
from esim.purchase import EsimRef, Provisioned
from resources.providers.payload import clean
from tests.resources.providers.contract_base import ContractBase, buy, finish
from tests.resources.providers.wire import HTML, Stage, Wire, anything, says


class AccountCases(ContractBase):
    """Usage, balance, top-ups, cancellation, activation data, webhooks, and privacy."""

    def test_the_balance_is_money(self, provider: Provider) -> None:
        assert provider.balance().currency == "USD"

    def test_usage_is_in_bytes(self, provider: Provider, wire: Wire) -> None:
        reading = provider.usage(wire.esim)
        assert (reading.used_bytes, reading.total_bytes) == wire.usage
        assert reading.status
        if reading.expires_at is not None:
            assert reading.expires_at.tzinfo is not None

    def test_activation_data_can_be_read_again(self, provider: Provider, wire: Wire) -> None:
        profile = provider.esim_details(wire.esim)
        assert profile.iccid == wire.esim.iccid
        assert profile.lpa.startswith("LPA:1$")

    def test_top_ups_are_top_ups(self, provider: Provider, wire: Wire) -> None:
        offers = provider.top_ups(wire.esim)
        assert bool(offers) == provider.capabilities.top_up
        assert all(offer.kind is OfferKind.TOP_UP for offer in offers)

    def test_a_top_up_is_bought_once(self, provider: Provider, wire: Wire) -> None:
        if wire.top_up_request is None:
            assert not provider.capabilities.top_up
            return
        outcome, _ = buy(provider, wire.top_up_request)
        outcome = finish(provider, outcome, wire.top_up_request, wire.clock)
        assert isinstance(outcome, Provisioned)
        assert wire.top_up_request.top_up_of is not None
        assert outcome.profile.iccid == wire.top_up_request.top_up_of.iccid
        assert len(wire.sold) == 1

    def test_cancelling_says_honestly_what_became_of_it(self, provider: Provider, wire: Wire) -> None:
        assert isinstance(provider.cancel(wire.esim), wire.cancel_outcome)

    @pytest.mark.parametrize("typed", ["../../zz9", "..", "zz9?x=1#y"])
    def test_an_id_stays_one_part_of_a_path(self, provider: Provider, wire: Wire, stage: Stage, typed: str) -> None:
        stage.when(lambda request: b"zz9" in request.url.raw_path, says({"message": "not found"}, 404))
        provider.order_status(typed, wire.request)
        strange = EsimRef(typed, typed, typed, typed)
        for read in (provider.esim_details, provider.usage, provider.top_ups, provider.cancel):
            with suppress(ProviderError):
                read(strange)
        paths = [request.url.raw_path.partition(b"?")[0] for request in stage.requests]
        named = [path for path in paths if b"zz9" in path]
        assert all(quote(typed, safe="").encode() in path.split(b"/") for path in named)
        assert all(path.startswith(b"/api/") and not path.endswith(b"/") and b"//" not in path for path in paths)

    def test_genuine_webhooks_are_read(self, provider: Provider, wire: Wire) -> None:
        for hook in wire.hooks():
            provider.verify_webhook(hook.headers, hook.body)
            events = provider.parse_webhook(hook.body)
            assert events[0].kind is hook.kind
            assert all(event.event_id for event in events)
            assert provider.parse_webhook(hook.body) == events  # the id does not depend on the delivery

    @pytest.mark.parametrize("odd", ["\\ud800", "\\u0000"])
    def test_texts_that_no_database_holds_do_not_come_through(self, provider: Provider, wire: Wire, odd: str) -> None:
        for hook in wire.hooks():
            body = hook.body.replace(b'": "', f'": "{odd}'.encode()).replace(b'":"', f'":"{odd}'.encode())
            with suppress(WebhookRejected):
                provider.verify_webhook(hook.headers, body)
            with suppress(WebhookRejected):
                for event in provider.parse_webhook(body):
                    told = (event.event_id, event.reference, event.provider_order_id, event.iccid, event.message)
                    assert [clean(text) for text in told] == list(told)

    def test_forged_webhooks_are_refused(self, provider: Provider, wire: Wire) -> None:
        if not provider.capabilities.signed_webhooks:
            return
        for hook in wire.hooks():
            forged = {name: value[:-1] + ("0" if value[-1] != "0" else "1") for name, value in hook.headers.items()}
            for headers, body in (
                ({}, hook.body),
                (dict.fromkeys(hook.headers, ""), hook.body),
                (dict.fromkeys(hook.headers, "ü"), hook.body),
                (forged, hook.body),
                (hook.headers, hook.body + b" "),
                (hook.headers, json.dumps(json.loads(hook.body), indent=3).encode()),
            ):
                with pytest.raises(WebhookRejected):
                    provider.verify_webhook(headers, body)

    @pytest.mark.parametrize("body", [b"", HTML, b"[[[[", b"7", b"null", b"\xff\xfe"])
    def test_a_webhook_body_that_is_no_event_is_refused(self, provider: Provider, wire: Wire, body: bytes) -> None:
        if wire.hooks():
            with pytest.raises(WebhookRejected):
                provider.parse_webhook(body)

    def test_nothing_secret_is_shown_or_logged(
        self, provider: Provider, wire: Wire, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        outcome, _ = buy(provider, wire.request)
        outcome = finish(provider, outcome, wire.request, wire.clock)
        shown = [repr(outcome), repr(provider), str(provider), repr(provider.esim_details(wire.esim))]
        shown += [repr(provider.usage(wire.esim)), repr(provider.top_ups(wire.esim)), repr(provider.cancel(wire.esim))]
        shown += [repr(provider.parse_webhook(hook.body)) for hook in wire.hooks()]
        stage.when(anything, lambda _: wire.unauthorised())
        with pytest.raises(ProviderError) as refused:
            provider.usage(wire.esim)
        for secret in wire.secrets:
            assert secret not in caplog.text
            assert not [text for text in [*shown, str(refused.value)] if secret in text]

    def test_the_declaration_fits_together(self, provider: Provider) -> None:
        able = provider.capabilities
        assert able.max_quantity >= 1
        assert able.settle_seconds > 0
        assert all(limit.calls > 0 and limit.per_seconds > 0 for limit in able.rate_limits)
        assert len({limit.name for limit in able.rate_limits}) == len(able.rate_limits)
