"""The steps of the demo, each printed as it happens, and the comparison of all sides at the end."""

import json
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from esim.errors import NumnaRoadError
from resources.settings import Settings

_CUSTOMER = "traveller@example.com"
_DELIVERED_WITHIN_SECONDS = 60
Json = dict[str, Any]
T = TypeVar("T")


class Disagreement(NumnaRoadError):
    """Two sides of the demo tell different stories."""


class Shop:
    """The running demo shop, seen from outside: its API, the sandbox beside it, its store and its lake."""

    def __init__(self, settings: Settings, console: Console) -> None:
        from resources.db.databases import databases, make_engine

        self._settings = settings
        self._console = console
        self._urls = databases(settings)
        self._engine: Engine = make_engine(self._urls.operational, pool_size=4)
        self._api = httpx.Client(base_url=settings.api_url, timeout=30)
        self._sandbox = httpx.Client(base_url=settings.sandbox_url, timeout=30)

    def play(self) -> list[str]:
        """Run every step; return the disagreements found at the end (none when all is well).

        Raises:
            Disagreement: a step did not do what it should.
        """
        self._say("2  Five catalogues -> best prices -> published")
        self._sync()
        package = self._choose()
        self._say(f"3  The cheapest provider of {package['id']} is made to fail")
        cheapest = self._make_the_cheapest_fail(package["id"])
        self._say("4  Checkout, payment, signed webhook")
        order = self._buy(package)
        self._say("5  Sensor -> run -> failover -> delivered")
        self._watch(order)
        provider = self._show_attempts(order, cheapest)
        self._say("6  The mail in the customer's inbox")
        self._show_mail()
        self._say("7  The margin, read from the lake")
        margin = self._margin(order)
        self._say("8  What every side says")
        return self._compare(order, provider, margin)

    # --- steps --------------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        from cli.catalogue import sync_with_progress

        sync_with_progress(self._settings, self._console, providers=None)

    def _choose(self) -> Json:
        """Return a Japanese plan that several providers sell."""
        plans = self._wait_for(lambda: self._get("/v1/packages", {"destination": "JP", "limit": 200})["packages"])
        from resources.db.catalogue_report import candidates_of

        with self._engine.connect() as connection:
            candidates = candidates_of(connection, [plan["id"] for plan in plans])
        rivals = {key: {offer["provider"] for offer in offers} for key, offers in candidates.items()}
        # What travellers buy most, from as many rivals as there are.
        plan: Json = max(plans, key=lambda each: (len(rivals[each["id"]]), each["data_mb"] == 5000, each["id"]))
        if len(rivals[plan["id"]]) < 2:
            raise Disagreement("no Japanese plan is sold by two providers, so there is nothing to fail over to")
        self._console.print(f"   {len(plans)} plans for Japan; we buy [bold]{plan['name']}[/bold] ({plan['id']})")
        table = Table("provider", "landed cost USD", "best price", "plan", header_style="bold")
        for offer in candidates[plan["id"]]:
            cost = f"{Decimal(offer['landed_micros']).scaleb(-6):.2f}"
            table.add_row(
                offer["provider"], cost, "yes" if offer["is_best_price"] else "", offer["provider_package_id"]
            )
        self._console.print(table)
        return plan

    def _make_the_cheapest_fail(self, package_id: str) -> str:
        from resources.db.catalogue_report import candidates_of

        with self._engine.connect() as connection:
            best = next(each for each in candidates_of(connection, [package_id])[package_id] if each["is_best_price"])
        provider = str(best["provider"])
        fault = {"provider": provider, "call": "order", "kind": "out_of_stock", "times": None}
        self._sandbox.put("/sandbox/faults", json=fault).raise_for_status()
        self._console.print(f"   {provider} now answers every order with its own words for 'out of stock'")
        return provider

    def _buy(self, package: Json) -> Json:
        body = {"items": [{"package_id": package["id"], "quantity": 1}], "email": _CUSTOMER}
        reply = self._api.post("/v1/checkout", json=body, headers={"Idempotency-Key": f"demo-{time.time_ns()}"})
        if reply.status_code != httpx.codes.CREATED:
            raise Disagreement(f"checkout answered {reply.status_code}: {reply.text[:300]}")
        order: Json = reply.json()
        self._console.print(f"   order {order['display_id']}, {order['amount_minor']} minor units {order['currency']}")
        session = urlsplit(order["checkout_url"]).path.rsplit("/", 1)[-1]
        self._sandbox.post(f"/sandbox/stripe/pay/{session}", json={"outcome": "succeed"}).raise_for_status()
        self._console.print("   paid on the payment page; the webhook is on its way")
        return order

    def _watch(self, order: Json) -> None:
        """Follow the order as its page does, by server-sent events, until it is done."""
        path, headers = f"/v1/orders/{order['order_id']}/events", {"Authorization": f"Bearer {order['order_token']}"}
        started, kind = time.monotonic(), ""
        with self._api.stream("GET", path, headers=headers, timeout=_DELIVERED_WITHIN_SECONDS) as reply:
            reply.raise_for_status()
            for line in reply.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind == "status":
                    self._console.print(f"   {time.monotonic() - started:5.1f} s  {_event(json.loads(value))}")
        status = self._order(order)["status"]
        if status != "completed":
            raise Disagreement(f"the order ended as {status}, not as completed")

    def _show_attempts(self, order: Json, cheapest: str) -> str:
        from resources.db.order_report import find_order_id, order_report

        with self._engine.connect() as connection:
            report = order_report(connection, find_order_id(connection, order["order_id"]))
        table = Table("attempt", "provider", "outcome", "why", "ms", header_style="bold")
        for each in report.attempts:
            why = each["error_type"] or ""
            table.add_row(str(each["number"]), each["provider"], each["state"], why, str(each["latency_ms"] or ""))
        self._console.print(table)
        if not any(each["provider"] == cheapest and each["state"] == "rejected" for each in report.attempts):
            raise Disagreement(f"{cheapest} was made to fail, but no attempt there was rejected")
        return next(str(each["provider"]) for each in report.attempts if each["state"] == "provisioned")

    def _show_mail(self) -> None:
        mails = self._wait_for(self._mails)
        for mail in mails:
            self._console.print(f"   [bold]{mail['subject']}[/bold]  ({self._settings.sandbox_url}{mail['url']})")
            for line in mail["text"].splitlines()[:18]:
                self._console.print(f"   | {line}", markup=False, highlight=False)

    def _margin(self, order: Json) -> Json:
        from resources.warehouse.lake import Lake
        from resources.warehouse.refresh import refresh_warehouse

        self._wait_for(lambda: self._fee_is_booked(order))
        lake = Lake(self._urls.lake, self._settings.lake_path)
        refresh_warehouse(self._engine, lake, self._settings.data_dir / "analytics.duckdb")
        rows = lake.read("select * from marts.margins_by_day order by paid_on")
        table = Table("marts.margins_by_day", "USD", header_style="bold")
        for name, value in rows.row(0, named=True).items():
            shown = Decimal(value).scaleb(-6) if name.endswith("_micros") else value
            table.add_row(name.removesuffix("_micros"), str(shown))
        self._console.print(table)
        items = lake.read("select * from core.fct_order_items where order_id = ?", (order["order_id"],))
        if items.height != 1:
            raise Disagreement(f"the lake has {items.height} items for the order instead of 1")
        return dict(items.row(0, named=True))

    def _fee_is_booked(self, order: Json) -> bool:
        from resources.db.order_report import find_order_id, order_report

        with self._engine.connect() as connection:
            ledger = order_report(connection, find_order_id(connection, order["order_id"])).ledger
        return any(entry["account"] == "payment_fees" for entry in ledger)

    # --- what every side says ------------------------------------------------------------------------------------

    def _compare(self, order: Json, provider: str, item: Mapping[str, Any]) -> list[str]:
        view = self._order(order)
        charges = [each for each in self._charges() if each["client_reference_id"] == order["order_id"]]
        sold = [each for each in self._sold() if each["state"] == "delivered"]
        cost = sum((Decimal(each["cost"]) for each in sold), Decimal(0))
        lake_cost = Decimal(item["wholesale_cost_micros"]).scaleb(-6)
        fees = sum(Decimal(each["fee_minor"]).scaleb(-2) for each in charges)
        lake_fee = Decimal(item["payment_fee_micros"]).scaleb(-6)
        facts = [
            ("charged by Stripe", [each["amount_minor"] for each in charges], [order["amount_minor"]]),
            ("mails to the customer", len(self._mails()), 1),
            ("eSIMs the order has", len(view["esims"]), 1),
            ("eSIMs providers sold", len(sold), 1),
            ("sold by", [each["provider"] for each in sold], [provider]),
            ("ICCID the provider sold", [each["iccid"] for each in sold], [each["iccid"] for each in view["esims"]]),
            ("cost in the lake and at the provider, USD", f"{lake_cost:.4f}", f"{cost:.4f}"),
            ("fee in the lake and at Stripe, USD", f"{lake_fee:.2f}", f"{fees:.2f}"),
        ]
        table = Table("fact", "found", "expected", "", header_style="bold")
        problems = []
        for name, found, expected in facts:
            agrees = found == expected
            # An ICCID is personal data even in a demo: only whether it matches is shown.
            shown = ("…", "…") if "ICCID" in name else (str(found), str(expected))
            table.add_row(name, *shown, "[green]agrees[/green]" if agrees else "[red]differs[/red]")
            if not agrees:
                problems.append(f"{name}: found {shown[0]}, expected {shown[1]}")
        self._console.print(table)
        return problems

    def _charges(self) -> list[Json]:
        return list(self._sandbox.get("/sandbox/charges").raise_for_status().json()["charges"])

    def _sold(self) -> list[Json]:
        return list(self._sandbox.get("/sandbox/purchases").raise_for_status().json()["purchases"])

    def _mails(self) -> list[Json]:
        reply = self._sandbox.get("/sandbox/mails", params={"to": _CUSTOMER}).raise_for_status()
        return list(reply.json()["mails"])

    def _order(self, order: Json) -> Json:
        headers = {"Authorization": f"Bearer {order['order_token']}"}
        return self._get(f"/v1/orders/{order['order_id']}", headers=headers)

    def _get(self, path: str, params: Mapping[str, str | int] | None = None, **extra: Any) -> Json:
        reply = self._api.get(path, params=params, **extra)
        if not reply.is_success:
            raise Disagreement(f"GET {path} answered {reply.status_code}: {reply.text[:300]}")
        return dict(reply.json())

    def _wait_for(self, look: Callable[[], T], seconds: float = 30) -> T:
        end = time.monotonic() + seconds
        while True:
            found = look()
            if found or time.monotonic() > end:
                if not found:
                    raise Disagreement("waited in vain; rerun with --keep and read the logs folder it names")
                return found
            time.sleep(0.2)

    def _say(self, title: str) -> None:
        self._console.rule(f"[bold]{title}")


def _event(event: Mapping[str, Any]) -> str:
    unit = f"eSIM {event['esim']}: " if event["esim"] else ""
    return f"{unit}{event['status']:12} {event['message']}"
