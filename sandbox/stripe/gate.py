"""What every API call passes: key, parameters, faults, idempotency, and the headers of Stripe's answers.

request -> key -> parameters -> fault before -> saved answer? -> operation -> save -> fault after -> answer
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from sandbox.drops import Hangup
from sandbox.faults import Fault
from sandbox.stripe import form, ids
from sandbox.stripe.errors import StripeError
from sandbox.stripe.listing import expand
from sandbox.stripe.params import Params
from sandbox.stripe.session_objects import API_VERSION, Json
from sandbox.stripe.state import SavedAnswer, StripeState

KEY_LIFE_S = 24 * 3600
LONGEST_KEY = 255


@dataclass(frozen=True)
class Call:
    """One authenticated call: decoded parameters and what events say about the request."""

    params: Params
    request: Json


Operation = Callable[[Call], Json]


class Gate:
    """Runs operations for requests; one per Stripe account."""

    def __init__(self, state: StripeState) -> None:
        self._state = state

    async def run(self, request: Request, operation: Operation, *extra_faults: str) -> Response:
        """Answer one API request; never raises for what the client did wrong."""
        request_id = ids.request_id()
        headers = {"Request-Id": request_id, "Stripe-Version": request.headers.get("Stripe-Version") or API_VERSION}
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key:
            headers["Idempotency-Key"] = key
        fault = self._fault(request, extra_faults)
        try:
            self._authenticate(request)
            encoded = (await request.body()).decode() if request.method == "POST" else request.url.query
            values = form.decode(encoded)
            if fault is not None and _when(fault) == "before":
                return self._struck(fault, headers)
            call = Call(Params(values), {"id": request_id, "idempotency_key": key})
            answer = self._remembered(request, key, values, headers)
            if answer is None:
                answer = self._execute(call, operation, fault)
                if key:
                    self._state.saved[key] = SavedAnswer(
                        _fingerprint(request, values), self._state.now(), answer, request_id
                    )
        except StripeError as error:
            answer = (error.status, error.body(request_id))
        except UnicodeDecodeError:
            answer = (400, StripeError.invalid("The request body is not UTF-8.").body(request_id))
        if fault is not None and _when(fault) == "after":
            return self._struck(fault, headers)
        return _answer(answer, headers)

    def _fault(self, request: Request, extra: tuple[str, ...]) -> Fault | None:
        path = request.scope["path"]
        return self._state.faults.strike("api_error", "api_timeout", *extra, path=path[path.find("/v1/") :])

    def _struck(self, fault: Fault, headers: dict[str, str]) -> Response:
        if fault.kind == "api_timeout":
            return Hangup(self._state.world.closing, fault.number("seconds", 60))
        return _answer(_fault_answer(fault, headers["Request-Id"]), headers)

    def _authenticate(self, request: Request) -> None:
        scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            credential = _basic_user(credential)
        if not credential:
            message = (
                "You did not provide an API key. You need to provide your API key in the Authorization header, "
                "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
            )
            raise StripeError(401, "invalid_request_error", message)
        if credential.strip() != self._state.secret_key:
            masked = f"{credential[:8]}{'*' * 8}{credential[-4:]}" if len(credential) > 12 else "*" * len(credential)
            raise StripeError(401, "invalid_request_error", f"Invalid API Key provided: {masked}")

    def _remembered(
        self, request: Request, key: str | None, values: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, Json] | None:
        """The answer the first request with this key got; None when this is the first."""
        if key is None:
            return None
        if len(key) > LONGEST_KEY:
            raise StripeError.invalid("Idempotency keys are at most 255 characters long.")
        known = self._state.saved.get(key)
        if known is None or known.at + KEY_LIFE_S <= self._state.now():
            return None
        if known.fingerprint != _fingerprint(request, values):
            message = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request."
            )
            raise StripeError(400, "idempotency_error", message)
        headers |= {"Idempotent-Replayed": "true", "Original-Request": known.request_id}
        return known.answer

    def _execute(self, call: Call, operation: Operation, fault: Fault | None) -> tuple[int, Json]:
        """Run the operation; raises StripeError only for what no idempotency key remembers."""
        try:
            paths = call.params.words("expand")
            answer = (200, expand(self._state, json.loads(json.dumps(operation(call))), paths))
        except StripeError as error:
            if not error.saved:
                raise
            answer = (error.status, error.body(call.request["id"]))
        if fault is not None and _when(fault) == "stored":
            return _fault_answer(fault, call.request["id"])
        return answer


def _when(fault: Fault) -> str:
    return str(fault.params.get("when", "before"))


def _fault_answer(fault: Fault, request_id: str) -> tuple[int, Json]:
    status = int(fault.number("status", 500))
    default = "api_error" if status >= 500 else "invalid_request_error"
    error = StripeError(
        status,
        str(fault.params.get("type") or default),
        str(fault.params.get("message") or "An unknown error occurred. (A fault of the sandbox.)"),
        code=str(fault.params["code"]) if "code" in fault.params else None,
    )
    return status, error.body(request_id)


def _answer(answer: tuple[int, Json], headers: dict[str, str]) -> Response:
    status, body = answer
    return JSONResponse(body, status_code=status, headers=headers)


def _basic_user(credential: str) -> str:
    try:
        return base64.b64decode(credential, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _fingerprint(request: Request, values: dict[str, Any]) -> str:
    canonical = json.dumps([request.scope["path"], values], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
