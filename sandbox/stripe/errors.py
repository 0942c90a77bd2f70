"""Stripe's error bodies: one exception that carries status, type, code, message and parameter."""

from typing import Any


class StripeError(Exception):
    """An answer other than 2xx, in Stripe's shape; `saved` says whether an idempotency key remembers it."""

    def __init__(
        self,
        status: int,
        error_type: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        saved: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.code = code
        self.param = param
        self.saved = saved

    @classmethod
    def invalid(cls, message: str, *, param: str | None = None, code: str | None = None) -> "StripeError":
        """Refuse parameters before anything was executed (400)."""
        return cls(400, "invalid_request_error", message, code=code, param=param)

    @classmethod
    def refused(cls, message: str, *, param: str | None = None, code: str | None = None) -> "StripeError":
        """Refuse an operation that had started to execute (400, remembered by the idempotency key)."""
        return cls(400, "invalid_request_error", message, code=code, param=param, saved=True)

    @classmethod
    def missing(cls, kind: str, object_id: str, *, param: str = "id", status: int = 404) -> "StripeError":
        """Say that an object does not exist."""
        message = f"No such {kind}: '{object_id}'"
        return cls(status, "invalid_request_error", message, code="resource_missing", param=param)

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body, fields left out where Stripe leaves them out."""
        error: dict[str, Any] = {"message": self.message, "type": self.error_type}
        if self.code:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param:
            error["param"] = self.param
        error["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": error}
