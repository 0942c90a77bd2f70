"""The shared HTTP client: what is retried, what is sent once, and what an answer may not be."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from time import monotonic

import httpx
import pytest

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderRejected, ProviderThrottled, ProviderUnavailable
from esim.fakes import MemoryLimiter
from esim.ports import Capabilities, Limiter, RateLimit
from esim.purchase import ErrorType, Rejected, Unknown
from resources.providers.base import (
    CATALOGUE,
    MAX_PURCHASE_BYTES,
    MAX_REPLY_BYTES,
    PREPARE,
    READ,
    Patience,
    ProviderHttp,
    Reply,
    Unlimited,
    next_try,
    path_part,
    raise_for_read,
    settled,
    token_key,
)
from resources.providers.outcomes import not_bought, still_unknown
from tests.resources.providers.wire import NOW

LIMITED = Capabilities(rate_limits=(RateLimit("orders", 2, 1.0), RateLimit("*", 10, 1.0)), settle_seconds=60.0)


class Endless(httpx.SyncByteStream):
    """A body larger than any answer may be."""

    def __iter__(self) -> Iterator[bytes]:
        piece = b"x" * (1 << 20)
        return (piece for _ in range((MAX_REPLY_BYTES >> 20) + 2))


class Dripping(httpx.SyncByteStream):
    """A body that comes a byte at a time, each after twenty seconds by `timer`."""

    def __init__(self, timer: "Timer", pieces: int) -> None:
        self._timer = timer
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._pieces):
            self._timer.seconds += 20
            yield b" "


class Timer:
    """A monotonic clock that moves when it is told to."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def line(
    answer: Callable[[httpx.Request], httpx.Response],
    limiter: Limiter | None = None,
    timer: Callable[[], float] = monotonic,
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
        timer=timer,
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
        http.read("orders", lambda: http.request("GET", "orders"), patience=Patience(attempts, 1, 1, 1))
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
    with pytest.raises(ProviderThrottled) as caught:
        http.read("orders", lambda: http.request("GET", "orders"))
    assert not_bought(caught.value).error_type is ErrorType.RATE_LIMITED
    assert seen == []
    assert limiter.asked == ["acme:orders", "acme:orders"]  # the wait for a slot is not repeated


@pytest.mark.parametrize(("patience", "tries"), [(READ, 4), (CATALOGUE, 4), (PREPARE, 2)])
def test_a_throttled_read_says_so_and_when_to_come_back(patience: Patience, tries: int) -> None:
    http, seen = line(lambda _: httpx.Response(429, headers={"Retry-After": "7"}))
    with pytest.raises(ProviderThrottled) as caught:
        http.read("orders", lambda: http.request("GET", "orders"), patience=patience)
    assert len(seen) == tries
    refused = not_bought(caught.value)
    assert (refused.error_type, refused.retry_after_seconds) == (ErrorType.RATE_LIMITED, 7.0)
    assert still_unknown(caught.value).error_type is ErrorType.RATE_LIMITED


@pytest.mark.parametrize(
    ("asked", "patience", "waits"),
    [
        (7.0, READ, 7.0),
        (3600.0, READ, 10.0),
        (45.0, CATALOGUE, 45.0),
        (3600.0, CATALOGUE, 60.0),
        (3600.0, PREPARE, 2.0),
        (None, READ, True),
    ],
)
def test_a_throttled_read_waits_as_long_as_it_is_asked_within_reason(
    asked: float | None, patience: Patience, waits: float | bool
) -> None:
    assert next_try(ProviderThrottled(wait_seconds=asked), patience) == waits
    assert next_try(ProviderUnavailable(), patience) is True
    assert next_try(MalformedReply(), patience) is False


def test_nobody_waits_long_for_a_slot_before_a_purchase() -> None:
    assert PREPARE.slot_seconds <= 5 < READ.slot_seconds


def test_a_body_that_drips_is_given_up_in_the_end() -> None:
    timer = Timer()
    http, _ = line(lambda _: httpx.Response(200, stream=Dripping(timer, 100)), timer=timer)
    lost = http.send_once("orders", http.request("POST", "orders"))
    assert lost == Unknown(ErrorType.PROVIDER_TIMEOUT, "acme orders: ReadTimeout; may have arrived")
    assert timer.seconds <= 20
    with pytest.raises(ProviderUnavailable, match="ReadTimeout"):
        http.read("orders", lambda: http.request("GET", "orders"), patience=PREPARE)
    assert timer.seconds <= 20 + 2 * 60


def test_a_slow_catalogue_is_waited_for() -> None:
    timer = Timer()
    http, _ = line(lambda _: httpx.Response(200, stream=Dripping(timer, 10)), timer=timer)
    assert http.read("orders", lambda: http.request("GET", "orders"), patience=CATALOGUE).status == 200


def test_the_answer_to_a_purchase_is_small() -> None:
    http, _ = line(lambda _: httpx.Response(200, content=b" " * (MAX_PURCHASE_BYTES + 1)))
    assert isinstance(http.send_once("orders", http.request("POST", "orders")), Unknown)
    assert http.read("orders", lambda: http.request("GET", "orders")).status == 200


def test_a_token_belongs_to_one_address_and_account() -> None:
    names = {token_key("acme", url, who) for url in ("https://a.test", "https://b.test") for who in ("one", "two")}
    assert len(names) == 4
    assert all(name.startswith("acme:") and "two" not in name and "test" not in name for name in names)


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


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), ("0.5", 0.5), ("soon", None), ("", None), ("1.2.3", None), ("²", None)]
)
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


def test_an_id_is_one_part_of_a_path_whatever_it_holds() -> None:
    assert [path_part(value) for value in ("12", "a/b", "../../x", "x?y#z", "é ")] == [
        "12",
        "a%2Fb",
        "..%2F..%2Fx",
        "x%3Fy%23z",
        "%C3%A9%20",
    ]


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_what_would_name_another_path_is_no_id(value: str) -> None:
    with pytest.raises(ProviderRejected, match="is no id"):
        path_part(value)
