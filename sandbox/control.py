"""Control routes: faults, purchases, reset, deliveries, and the home page that links everything."""

import html
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from sandbox import mail, slack
from sandbox.faults import CALLS, SLUGS, BadFaultError
from sandbox.stripe import state as stripe
from sandbox.wire import as_json, reply
from sandbox.world import World

LONGEST_LEAP_SECONDS = 30 * 86_400


def _problem(status: int, text: str) -> Response:
    return reply({"detail": text}, status)


def _told(states: dict[str, int]) -> str:
    return html.escape(", ".join(f"{units} {state}" for state, units in states.items()) or "nothing yet")


class ControlPanel:
    """The handlers behind /sandbox."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def faults(self) -> Response:
        """Faults in force and what can be asked for."""
        book = self._world.faults
        shown = {"faults": book.as_json(), "targets": book.targets, "kinds": book.kinds}
        return reply(shown | {"struck": dict(book.struck)})

    async def put_faults(self, request: Request) -> Response:
        """Put one fault or a list of them in force; all or none."""
        try:
            wanted = orjson.loads(await request.body())
        except orjson.JSONDecodeError as error:
            return _problem(422, f"the body is not JSON: {error}")
        many = wanted if isinstance(wanted, list) else [wanted]
        if not all(isinstance(entry, dict) for entry in many):
            return _problem(422, "the body must be a fault object or a list of them")
        try:
            for entry in many:
                self._world.faults.check(entry)
        except BadFaultError as error:
            return _problem(422, str(error))
        for entry in many:
            self._world.faults.add(entry)
        return await self.faults()

    async def clear_faults(self) -> Response:
        """End every fault, those of Stripe, mail and Slack too."""
        self._world.faults.clear()
        for part in (stripe, mail, slack):
            part.clear_faults(self._world)
        return await self.faults()

    async def purchases(self, request: Request) -> Response:
        """What the providers really sold, with counts per provider and state."""
        query = request.query_params
        provider = query.get("provider") or None
        if provider is not None and provider not in SLUGS:
            return _problem(422, f"unknown provider {provider!r}; allowed: {', '.join(SLUGS)}")
        since = None
        if query.get("since"):
            try:
                since = datetime.fromisoformat(query["since"].replace(" ", "+"))
            except ValueError:
                return _problem(
                    422, f"since={query['since']!r} is not an ISO 8601 time such as 2026-11-21T10:00:00+00:00"
                )
            since = since if since.tzinfo else since.replace(tzinfo=UTC)
        rows = self._world.purchases.find(provider, query.get("reference") or None, since)
        return reply(
            {
                "purchases": [row.as_json() for row in rows],
                "counts": self._world.purchases.counts(rows),
                "total": len(rows),
            }
        )

    async def reset(self) -> Response:
        """Forget faults, purchases and orders."""
        self._world.reset()
        return Response(status_code=204)

    async def put_clock(self, request: Request) -> Response:
        """Put this sandbox's clock ahead of the real one: ids, limits, holds and signatures follow it, waits do not."""
        wanted = as_json(await request.body())
        ahead = wanted.get("ahead_seconds") if isinstance(wanted, dict) else None
        if isinstance(ahead, bool) or not isinstance(ahead, int | float) or not 0 <= ahead <= LONGEST_LEAP_SECONDS:
            return _problem(422, f"ahead_seconds must be a number from 0 to {LONGEST_LEAP_SECONDS}; not {ahead!r}")
        self._world.ahead = timedelta(seconds=ahead)
        return reply({"now": self._world.clock().isoformat()})

    async def webhooks(self) -> Response:
        """The last deliveries."""
        return reply({"deliveries": list(self._world.courier.log)})

    async def home(self) -> HTMLResponse:
        """A page that links everything there is to see."""
        counts = self._world.purchases.counts()
        rows = "".join(
            f"<tr><td><a href='/sandbox/purchases?provider={slug}'>{slug}</a></td>"
            f"<td>{_told(counts.get(slug, {}))}</td></tr>"
            for slug in SLUGS
        )
        return HTMLResponse(_HOME.format(rows=rows, faults=len(self._world.faults.as_json()), calls=", ".join(CALLS)))


_HOME = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sandbox</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#1d2733}}
table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.4rem .8rem;border-bottom:1px solid #d9e0e7}}
a{{color:#0b61a4}}code{{background:#eef2f5;padding:.1rem .3rem;border-radius:.2rem}}</style></head><body>
<h1>Sandbox</h1><p>The outside world on this machine: five eSIM providers, Stripe, mail, Slack and exchange rates.
Nothing here costs money.</p>
<h2>Look</h2><ul><li><a href="/inbox">Mail inbox</a></li><li><a href="/slack">Slack messages</a></li>
<li><a href="/stripe/">Stripe payments</a></li><li><a href="/rates">Exchange rates</a></li>
<li><a href="/sandbox/purchases">What the providers sold</a> (JSON)</li>
<li><a href="/sandbox/charges">What Stripe charged</a> (JSON)</li>
<li><a href="/sandbox/balances">Wallets at the providers</a> (JSON)</li>
<li><a href="/sandbox/webhooks">Webhook deliveries</a> (JSON)</li></ul>
<h2>Providers</h2><table><tr><th>provider</th><th>eSIMs and top-ups sold</th></tr>{rows}</table>
<h2>Faults</h2><p><a href="/sandbox/faults">{faults} in force</a>. <code>PUT /sandbox/faults</code> takes
<code>{{"provider": "airalo", "call": "order", "kind": "out_of_stock", "times": 1}}</code>; calls: {calls}.
<code>DELETE /sandbox/faults</code> ends them,
<code>POST /sandbox/reset</code> forgets everything,
<code>PUT /sandbox/clock</code> with
<code>{{"ahead_seconds": 3600}}</code> puts the clock ahead, <code>PUT /sandbox/esims/&lt;iccid&gt;</code> with
<code>{{"used_percent": 80}}</code> uses data as a traveller would.</p></body></html>"""


def build(world: World) -> APIRouter:
    """The control routes of one sandbox."""
    panel = ControlPanel(world)
    router = APIRouter(tags=["control"])
    options: dict[str, Any] = {"response_model": None}
    router.add_api_route("/sandbox/faults", panel.faults, methods=["GET"], **options)
    router.add_api_route("/sandbox/faults", panel.put_faults, methods=["PUT"], **options)
    router.add_api_route("/sandbox/faults", panel.clear_faults, methods=["DELETE"], **options)
    router.add_api_route("/sandbox/purchases", panel.purchases, methods=["GET"], **options)
    router.add_api_route("/sandbox/webhooks", panel.webhooks, methods=["GET"], **options)
    router.add_api_route("/sandbox/clock", panel.put_clock, methods=["PUT"], **options)
    router.add_api_route("/sandbox/reset", panel.reset, methods=["POST"], **options)
    router.add_api_route("/sandbox", panel.home, methods=["GET"], **options)
    return router
