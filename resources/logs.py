"""Logging for every process: one JSON object a line on stderr, with everything personal or secret taken out.

`structlog.get_logger()` and the standard library's loggers end in the same place. Redaction is by name (a field called
`email`) and by form (an address, an activation string or an ICCID inside any text), so that an exception's message
cannot carry one out either.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

REDACTED = "[redacted]"
_SECRET_NAMES = re.compile(
    r"e?mail|phone|msisdn|iccid|^lpa$|activation|matching_id|smdp|confirmation_code|(^|_)qr(_|$)|(^|_)apn(_|$)|install_url|password|passwd"
    r"|secret|token|authorization|cookie|api_?key|signature|(first|last|full|customer)_?name|^address$",
    re.IGNORECASE,
)
_SECRET_FORMS = (
    re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),  # e-mail addresses
    re.compile(r"LPA:1\$[^\s\"']+", re.IGNORECASE),  # activation strings (SGP.22)
    re.compile(r"\b89\d{16,18}F?\b"),  # ICCIDs (ITU-T E.118)
    re.compile(r"\b(?:sk|rk|whsec|re)_[A-Za-z0-9_]{8,}"),  # keys of the payment and mail services
    re.compile(r"\bBearer\s+[\w.~+/=-]+", re.IGNORECASE),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password in an address
)


def redact_text(text: str) -> str:
    """Return `text` without anything that looks personal or secret."""
    for form in _SECRET_FORMS:
        text = form.sub(REDACTED, text)
    return text


def redact(value: Any) -> Any:
    """Return `value` with secret fields replaced at any depth."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {
            key: REDACTED if item is not None and _SECRET_NAMES.search(str(key)) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    return value if isinstance(value, int | float | bool | None) else redact_text(str(value))


def redact_event(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Redact one log line, whatever its fields hold."""
    return {key: item if key.startswith("_") else redact({key: item})[key] for key, item in event.items()}


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process; safe to repeat."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact_event,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "stripe", "urllib3"):  # they log addresses and bodies at INFO and DEBUG
        logging.getLogger(chatty).setLevel(logging.WARNING)


def configure_sentry(dsn: str, release: str | None = None) -> None:
    """Send errors to Sentry without request bodies, cookies, headers or anything redaction knows."""
    import sentry_sdk
    from sentry_sdk.types import Event, Hint

    def scrub(event: Event, _hint: Hint) -> Event | None:
        for part in ("request", "user", "breadcrumbs"):
            event.pop(part, None)  # type: ignore[misc]  # a TypedDict key by variable
        return redact(event)  # type: ignore[no-any-return]  # redact keeps the shape

    sentry_sdk.init(
        dsn=dsn,
        release=release,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        before_send=scrub,
    )
