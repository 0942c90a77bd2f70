"""Every error the API answers is an RFC 9457 problem document; this is where they are made, and nowhere else.

`type` points into our own API pages, where each kind is explained. `errors` names the fields at fault. A problem never
carries a stack trace, a provider, a cost or personal data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem: its name in `type`, status and title."""

    name: str
    status: int
    title: str


INVALID_REQUEST = ProblemKind("invalid-request", 422, "The request is not valid")
IDEMPOTENCY_KEY_MISSING = ProblemKind("idempotency-key-missing", 400, "The header Idempotency-Key is missing")
IDEMPOTENCY_MISMATCH = ProblemKind("idempotency-mismatch", 409, "This idempotency key was used for another request")
CHECKOUT_EXPIRED = ProblemKind("checkout-expired", 409, "This checkout is over")
PRICE_CHANGED = ProblemKind("price-changed", 409, "A price has changed")
SOLD_OUT = ProblemKind("sold-out", 409, "A package is not on sale any more")
PAYMENT_UNAVAILABLE = ProblemKind("payment-unavailable", 503, "Payments are not available right now")
PAYMENT_REFUSED = ProblemKind("payment-refused", 502, "The payment service refused this checkout")
UNAUTHORIZED = ProblemKind("unauthorized", 401, "A valid order token is needed")
NOT_FOUND = ProblemKind("not-found", 404, "Not found")
TOO_MANY_REQUESTS = ProblemKind("too-many-requests", 429, "Too many requests")
WEBHOOK_REFUSED = ProblemKind("webhook-refused", 400, "The webhook was refused")
WEBHOOK_FORBIDDEN = ProblemKind("webhook-forbidden", 403, "The webhook was refused")
BODY_TOO_LARGE = ProblemKind("body-too-large", 413, "The request body is too large")
NOT_READY = ProblemKind("not-ready", 503, "Not ready")
TOO_MANY_STREAMS = ProblemKind("too-many-streams", 503, "Too many event streams are open")
INTERNAL = ProblemKind("internal-error", 500, "Something went wrong on our side")

KINDS = tuple(value for value in list(globals().values()) if isinstance(value, ProblemKind))


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: a dotted path such as `items.0.quantity`, or a header's name."""

    field: str
    message: str


class Problem(Exception):
    """A problem to be answered; `extra` are further members of the document."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.errors = kind, detail, tuple(errors)
        self.headers, self.extra = dict(headers or {}), dict(extra or {})


def invalid(field_name: str, message: str) -> Problem:
    """Return the problem of one field that cannot be used."""
    return Problem(INVALID_REQUEST, f"{field_name}: {message}", [FieldError(field_name, message)])


def not_found(detail: str) -> Problem:
    """Return the problem of something that is not there."""
    return Problem(NOT_FOUND, detail)


def problem_response(request: Request, problem: Problem) -> Response:
    """Return the answer for a problem met while serving `request`."""
    document = problem_document(
        type_uri(request, problem.kind.name), problem.kind.status, problem.kind.title, problem.detail, request.url.path
    )
    document["errors"] = [{"field": error.field, "message": error.message} for error in problem.errors]
    if request_id := request.scope.get("state", {}).get("request_id"):
        document["request_id"] = request_id
    body = orjson.dumps(document | dict(problem.extra))
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(body, problem.kind.status, headers, media_type=MEDIA_TYPE)


def type_uri(request: Request, name: str) -> str:
    """Return the address that explains this kind of problem."""
    return f"{request.app.state.shop.settings.api_url}/docs#problem-{name}"


def problem_document(type_: str, status: int, title: str, detail: str, instance: str) -> dict[str, object]:
    """Return the members that RFC 9457 names."""
    return {"type": type_, "title": title, "status": status, "detail": detail, "instance": instance}


def http_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """Return the problem of a plain HTTP error: 404, 405 and their like."""
    known = next((kind for kind in KINDS if kind.status == status), None)
    phrase = HTTPStatus(status).phrase
    kind = known or ProblemKind(phrase.lower().replace(" ", "-"), status, phrase)
    return Problem(kind, detail, headers=headers)
