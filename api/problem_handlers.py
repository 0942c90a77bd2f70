"""Which exception becomes which problem document."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.errors import (
    IDEMPOTENCY_KEY_MISSING,
    INVALID_REQUEST,
    FieldError,
    Problem,
    http_problem,
    problem_response,
)

_IDEMPOTENCY_KEY = ("header", "Idempotency-Key")
_PLACES = frozenset({"body", "query", "path", "header"})


def install(app: FastAPI) -> None:
    """Answer every known exception with a problem document; unknown ones are caught by the gate."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - registered for this type
        return problem_response(request, error)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
        return problem_response(request, _from_http(request, error))

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
        return problem_response(request, _from_validation(error.errors()))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _from_http(request: Request, error: HTTPException) -> Problem:
    detail = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not possible at {request.url.path}.",
    }.get(error.status_code, str(error.detail))
    return http_problem(error.status_code, detail, error.headers)


def _from_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    if any(error["type"] == "missing" and tuple(error["loc"]) == _IDEMPOTENCY_KEY for error in errors):
        detail = "Send a header Idempotency-Key with a fresh random value (a UUID) per order; repeat it to retry."
        return Problem(IDEMPOTENCY_KEY_MISSING, detail, [FieldError("Idempotency-Key", "is missing")])
    fields = [_field_error(error) for error in errors]
    return Problem(INVALID_REQUEST, "; ".join(f"{f.field}: {f.message}" for f in fields[:5]), fields)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    location = [str(part) for part in error["loc"]]
    place = location[0] if location else "body"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "json_invalid":
        return FieldError("body", f"is not JSON: {error.get('ctx', {}).get('error', message)}")
    path = location[1:] if place in _PLACES else location
    if not path:
        # A rule over the whole model names its field at the front of its message.
        named, colon, rest = message.partition(": ")
        return FieldError(named, rest) if colon and named.isidentifier() else FieldError(place, message)
    if error["type"] == "extra_forbidden":
        message = "is not known here; check its spelling"
    return FieldError(".".join(path), message)
