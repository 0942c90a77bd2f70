"""The shared HTTP client: what is retried, what is sent once, and what an answer may not be."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderRejected, ProviderUnavailable
from esim.fakes import MemoryLimiter
from esim.ports import Capabilities, Limiter, RateLimit
from esim.purchase import ErrorType, Rejected, Unknown
from resources.providers.base import MAX_REPLY_BYTES, ProviderHttp, Reply, Unlimited, raise_for_read, settled
from tests.resources.providers.wire import NOW

LIMITED = Capabilities(rate_limits=(RateLimit("orders", 2, 1.0), RateLimit("*", 10, 1.0)), settle_seconds=60.0)


class Endless(httpx.SyncByteStream):
    """A body larger than any answer may be."""

    def __iter__(self) -> Iterator[bytes]:
        piece = b"x" * (1 << 20)
        return (piece for _ in range((MAX_REPLY_BYTES >> 20) + 2))


def line(
    answer: Callable[[httpx.Request], httpx.Response], limiter: Limiter | None = None
) -> tuple[ProviderHttp, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer(request)

    http = ProviderHttp(
        "acme",
        "https://acme.test/v1/",
        capabilities=LIMITED,
        limiter=limiter or Unlimited(),
        timeout_seconds=1.0,
        transport=httpx.MockTransport(handle),
    )
    return http, seen


def test_paths_are_relative_to_the_base_address() -> None:
    http, seen = line(lambda _: httpx.Response(200, json={"price": 0.1}))
    reply = http.read("orders", lambda: http.request("GET", "/orders", params={"page": 2}))
    assert str(seen[0].url) == "https://acme.test/v1/orders?page=2"
    assert reply.json() == {"price": Decimal("0.1")}
    http.close()


def test_a_refused_read_is_not_retried() -> None:
    http, seen = line(lambda _: httpx.Response(404, json={}))
    assert http.read("orders", lambda: http.request("GET", "orders")).status == 404
    assert len(seen) == 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_a_failing_read_is_tried_as_often_as_asked(attempts: int) -> None:
    http, seen = line(lambda _: httpx.Response(500))
    with pytest.raises(ProviderUnavailable):
        http.read("orders", lambda: http.request("GET", "orders"), attempts=attempts)
    assert len(seen) == attempts


def test_an_answer_that_says_busy_is_tried_again() -> None:
    http, seen = line(lambda _: httpx.Response(200, json={"busy": len(seen) < 3}))
    reply = http.read("orders", lambda: http.request("GET", "orders"), busy=lambda r: r.json()["busy"])
    assert reply.json() == {"busy": False}
    assert len(seen) == 3


@pytest.mark.parametrize("status", [500, 503])
def test_a_purchase_is_sent_once_whatever_the_answer(status: int) -> None:
    http, seen = line(lambda _: httpx.Response(status))
    assert isinstance(http.send_once("orders", http.request("POST", "orders")), Unknown)
    assert len(seen) == 1


def test_a_throttled_purchase_was_not_done() -> None:
    http, _ = line(lambda _: httpx.Response(429, headers={"Retry-After": "7"}))
    answer = http.send_once("orders", http.request("POST", "orders"))
    assert answer == Rejected(ErrorType.RATE_LIMITED, "acme orders: throttled", 7.0)


def test_no_slot_means_not_sent() -> None:
    limiter = MemoryLimiter(slots=0)
    http, seen = line(lambda _: httpx.Response(200), limiter)
    assert isinstance(http.send_once("orders", http.request("POST", "orders")), Rejected)
    with pytest.raises(ProviderUnavailable):
        http.read("orders", lambda: http.request("GET", "orders"))
    assert seen == []
    assert limiter.asked[0] == "acme:orders"


def test_a_call_waits_for_its_own_limit_and_for_the_limit_of_all_calls() -> None:
    limiter = MemoryLimiter()
    http, _ = line(lambda _: httpx.Response(200), limiter)
    http.send_once("orders", http.request("POST", "orders"))
    http.send_once("usage", http.request("POST", "usage"))
    assert limiter.asked == ["acme:orders", "acme:*", "acme:*"]


def test_an_answer_without_end_is_cut_off() -> None:
    http, _ = line(lambda _: httpx.Response(200, stream=Endless()))
    with pytest.raises(MalformedReply):
        http.read("orders", lambda: http.request("GET", "orders"))
    assert isinstance(http.send_once("orders", http.request("POST", "orders")), Unknown)


def test_a_redirect_is_not_followed() -> None:
    http, seen = line(lambda _: httpx.Response(307, headers={"Location": "https://elsewhere.test"}))
    answer = http.send_once("orders", http.request("POST", "orders"))
    assert isinstance(answer, Reply)
    assert (answer.status, len(seen)) == (307, 1)


def test_addresses_do_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    http, _ = line(lambda _: httpx.Response(200))
    http.read("sim", lambda: http.request("GET", "sims/8944000000000001234"))
    assert "8944000000000001234" not in caplog.text


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": ', b"[" * 100_000, b"\xff\xff"])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        Reply(200, {}, body).json()


@pytest.mark.parametrize(("header", "seconds"), [("3", 3.0), ("0.5", 0.5), ("soon", None), ("", None), ("1.2.3", None)])
def test_retry_after_is_read_where_it_is_a_number(header: str, seconds: float | None) -> None:
    assert Reply(429, {"retry-after": header}, b"").retry_after == seconds


@pytest.mark.parametrize(
    ("status", "error"), [(401, ProviderAuthFailed), (403, ProviderAuthFailed), (404, ProviderRejected)]
)
def test_a_refused_read_has_a_name(status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="acme orders"):
        raise_for_read("acme", "orders", Reply(status, {}, b""))
    raise_for_read("acme", "orders", Reply(200, {}, b""))


def test_absence_is_proven_only_when_more_than_the_settle_time_is_over() -> None:
    assert not settled(LIMITED, NOW, NOW + timedelta(seconds=60))
    assert settled(LIMITED, NOW, NOW + timedelta(seconds=60.1))
