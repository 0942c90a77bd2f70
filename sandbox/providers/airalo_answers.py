"""How Airalo answers when it does not simply comply: its five error shapes, its limits and its pages."""

from typing import Any

from starlette.responses import Response

from sandbox.providers.site import Ask, Limit, Window
from sandbox.wire import Refused, reply

REASONS = {
    11: "Insufficient Airalo Credit: {more}",
    13: "The requested operator is currently undergoing maintenance. Please try again later.",
    14: "Invalid checksum",
    23: "The requested top-up has been disabled by the operator. ",
    33: "Insufficient stock of eSIMs remaining: {more}. Please try your request again later.",
    34: "The requested eSIM package is invalid or it is currently out of stock. Please try again later.",
    53: "Something unexpected happened. We're working to resolve the issue. Please try again later.",
    73: "The eSIM with iccid {more} has been recycled. It can no longer be used or topped up.",
}


def coded(code: int, more: object = "", status: int = 422) -> Response:
    """A business error: a code and a reason."""
    return reply({"code": code, "reason": REASONS[code].format(more=more)}, status)


def invalid(**fields: str) -> Refused:
    """A validation error, to be raised: field → message."""
    return Refused(reply({"data": fields, "meta": {"message": "the parameter is invalid"}}, 422))


def bare(message: str, status: int) -> Response:
    """An answer without data, with a message."""
    return reply({"data": [], "meta": {"message": message}}, status)


def too_many(wait: int = 30) -> Response:
    """The answer of a rate limit."""
    headers = {"Retry-After": str(wait), "X-RateLimit-Remaining": "0"}
    return reply({"message": "Too Many Attempts."}, 429, headers)


def limited(*windows: tuple[Window, str]) -> Limit:
    """A route's published limits, per token or per ICCID."""

    def check(ask: Ask) -> Response | None:
        for window, key in windows:
            wait = window.take(ask.path("iccid") if key == "iccid" else ask.account)
            if wait is not None:
                return too_many(wait)
        return None

    return check


def pages(ask: Ask, rows: list[Any], path: str) -> dict[str, Any]:
    """A list answer with links and meta."""
    limit = min(max(int(ask.query("limit") or 25), 1), 1000) if (ask.query("limit") or "25").isdigit() else 25
    page = max(1, int(ask.query("page") or 1)) if (ask.query("page") or "1").isdigit() else 1
    last = max(1, -(-len(rows) // limit))
    part = rows[(page - 1) * limit : page * limit]
    at = f"{path}?limit={limit}&page="
    first = (page - 1) * limit + 1
    return {
        "data": part,
        "links": {
            "first": f"{at}1", "last": f"{at}{last}", "prev": f"{at}{page - 1}" if page > 1 else None,
            "next": f"{at}{page + 1}" if page < last else None,
        },
        "meta": {
            "message": "success", "current_page": page, "from": first if part else None, "last_page": last,
            "path": path, "per_page": str(limit), "to": first + len(part) - 1 if part else None, "total": len(rows),
        },
    }  # fmt: skip


async def fields_of(ask: Ask) -> dict[str, Any]:
    """The body as JSON, as a form or as multipart: the documents say one, the SDKs send another."""
    if "json" in ask.request.headers.get("content-type", ""):
        payload = ask.json()
        if not isinstance(payload, dict):
            raise invalid(body="The body must be a JSON object.")
        return payload
    return dict(await ask.request.form())
