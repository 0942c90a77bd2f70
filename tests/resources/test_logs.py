"""Logs are JSON and carry nothing personal or secret, wherever it hides."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from resources.logs import REDACTED, configure_logging, redact, redact_text


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    found = io.StringIO()
    configure_logging(stream=found)
    yield found
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        "mail to traveller@example.com failed",
        "LPA:1$rsp.example.com$MATCH-0001",
        "iccid 8981100000000000017 is used",
        "key sk_live_abcdefgh12345678",
        "Authorization: Bearer abc.def-ghi",
        "postgresql://user:hunter2@db/numnaroad",
    ],
)
def test_what_looks_personal_or_secret_is_taken_out_of_any_text(text: str) -> None:
    cleaned = redact_text(text)
    assert REDACTED in cleaned
    for secret in ("traveller", "MATCH-0001", "8981100000000000017", "abcdefgh12345678", "abc.def", "hunter2"):
        assert secret not in cleaned


def test_ordinary_words_and_ids_stay() -> None:
    text = "order 0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d OID001 at airalo: HTTP 503 in 1200 ms, 12345678901234567"
    assert redact_text(text) == text


def test_fields_are_redacted_by_name_at_any_depth() -> None:
    told = redact(
        {"order_id": "o1", "email": "x", "unit": {"iccid": 1, "n": 2}, "tags": [{"order_token": "t"}], "n": None}
    )
    assert told == {
        "order_id": "o1",
        "email": REDACTED,
        "unit": {"iccid": REDACTED, "n": 2},
        "tags": [{"order_token": REDACTED}],
        "n": None,
    }


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    structlog.get_logger("api").info("request", route="/v1/packages", status=200, email="a@example.com")
    (line,) = lines(stream)
    assert line["event"] == "request"
    assert (line["level"], line["logger"], line["email"]) == ("info", "api", REDACTED)
    assert str(line["timestamp"]).endswith("Z")


def test_the_standard_library_ends_in_the_same_place(stream: io.StringIO) -> None:
    logging.getLogger("somebody").warning("could not write to %s", "traveller@example.com")
    (line,) = lines(stream)
    assert line["event"] == f"could not write to {REDACTED}"


def test_an_exceptions_trace_is_redacted_too(stream: io.StringIO) -> None:
    try:
        raise ValueError("no eSIM 8981100000000000017 for traveller@example.com")
    except ValueError:
        structlog.get_logger("api").exception("failed")
    text = stream.getvalue()
    assert "ValueError" in text
    assert "8981100000000000017" not in text
    assert "traveller@" not in text
