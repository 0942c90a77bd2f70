"""Logs are JSON and carry nothing personal or secret, wherever it hides."""

import gzip
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog

from resources.logs import REDACTED, configure_logging, redact, redact_text


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level, configured = list(root.handlers), root.level, structlog.get_config()
    found = io.StringIO()
    configure_logging(stream=found)
    yield found
    root.handlers, root.level = before, level
    structlog.configure(**configured)


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


SENTRY = """
import sys
from resources.logs import configure_sentry
import sentry_sdk
configure_sentry(sys.argv[1])
email = "local@example.com"
try:
    raise ValueError("no eSIM 8981100000000000017 for traveller@example.com")
except ValueError as error:
    sentry_sdk.set_user({"email": "user@example.com"})
    sentry_sdk.add_breadcrumb(message="crumb@example.com")
    sentry_sdk.capture_exception(error)
sentry_sdk.flush(10)
"""


def test_an_error_sent_to_sentry_carries_nothing_personal() -> None:
    received: list[bytes] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dsn = f"http://key@127.0.0.1:{server.server_address[1]}/1"
        done = subprocess.run(
            [sys.executable, "-c", SENTRY, dsn], capture_output=True, text=True, timeout=60, check=False
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    told = b"".join(received).decode()
    assert "ValueError" in told
    assert "@example.com" not in told
    assert "8981100000000000017" not in told
