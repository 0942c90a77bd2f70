"""Customers: they place orders, pay once or twice or not at all, come back to look, and some want their money back.

They know the shop's API and the payment page, nothing else; a customer who gets no answer asks again under the same
idempotency key, as the storefront does.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

from chaos.lines import line
from chaos.tally import Tally

_PATIENCE_SECONDS = 4.0
_VISITS = 5
PROMPT: Mapping[str, object] = {"copies": 1, "reorder": False, "lost": False, "delay_s": 0.0}  # webhooks
_STRIPE_KEY = "sk_test_sandbox"
SUCCEED, DECLINED, ABANDONED = "succeed", "fail", "abandoned"
SECOND, PART_BACK, ALL_BACK, DISPUTE, WRONG_AMOUNT = (
    "second payment",
    "part back",
    "all back",
    "dispute",
    "wrong amount",
)
Json = dict[str, Any]


@dataclass(frozen=True)
class Buyer:
    """One customer's plan: what is bought, how it is paid, and what goes wrong on the way."""

    key: str
    items: tuple[tuple[str, int], ...]
    outcome: str
    webhooks: Mapping[str, object]
    later: str = ""  # what happens after the payment: one of the words above
    declined_first: bool = False


@dataclass
class Basket:
    """What a customer holds: the order, its token and its payment page."""

    buyer: Buyer
    order_id: str
    token: str
    session_id: str
    amount_minor: int
    troubled: bool = field(default=False)  # what comes later was done


def draw_buyer(rng: Random, key: str, package_ids: list[str]) -> Buyer:
    """Draw one customer."""
    lines = rng.sample(package_ids, rng.choices((1, 2), (4, 1))[0])
    items = tuple((package_id, rng.choices((1, 2, 3), (6, 2, 1))[0]) for package_id in lines)
    outcome = rng.choices((SUCCEED, "async_succeed", "async_fail", DECLINED, ABANDONED), (86, 6, 2, 3, 3))[0]
    webhooks: Json = {
        "copies": rng.choices((1, 2, 3, 5), (6, 2, 1, 1))[0],
        "reorder": rng.random() < 0.2,
        "lost": rng.random() < 0.06,
        "delay_s": rng.choices((0.0, 0.3, 1.5), (7, 2, 1))[0],
    }
    laters = ("", SECOND, PART_BACK, ALL_BACK, DISPUTE, WRONG_AMOUNT)
    later = rng.choices(laters, (84, 5, 3, 3, 3, 2))[0] if outcome == SUCCEED else ""
    return Buyer(key, items, outcome, webhooks, later, outcome == SUCCEED and rng.random() < 0.06)


class Customers:
    """All customers of one shop."""

    def __init__(self, api_url: str, sandbox_url: str, tally: Tally) -> None:
        self._api = line(api_url, timeout_seconds=10)
        self._outside = line(sandbox_url, timeout_seconds=30)
        self._tally = tally

    def close(self) -> None:
        """Give connections back."""
        self._api.close()
        self._outside.close()

    def buy(self, buyer: Buyer) -> Basket | None:
        """Place an order and pay it as planned; None where the shop did not answer over five visits."""
        basket = self._place(buyer)
        if basket is None:
            self._tally.add("checkouts given up by the customer")
            return None
        self._tally.add("orders placed")
        if buyer.outcome == ABANDONED:
            self._tally.add("checkouts abandoned")
            return basket
        if buyer.declined_first:
            self._pay(basket.session_id, DECLINED, buyer)
        if buyer.later == WRONG_AMOUNT:
            self._pay(self._another_session(basket, basket.amount_minor - 100), SUCCEED, buyer)
        else:
            self._pay(basket.session_id, buyer.outcome, buyer)
        for kind in ("lost", "reorder"):
            self._tally.add(f"payment webhooks {kind}", int(bool(buyer.webhooks[kind])))
        self._tally.add("payment webhooks sent again", int(str(buyer.webhooks["copies"])) - 1)
        self._tally.add("payment webhooks late", int(bool(buyer.webhooks["delay_s"])))
        return basket

    def trouble(self, basket: Basket) -> None:
        """Do what comes after the payment: pay again, have money back by hand, dispute."""
        if basket.troubled or basket.buyer.later in {"", WRONG_AMOUNT}:
            return
        charge = self._charge_of(basket)
        if charge is None:
            return
        basket.troubled = True
        if basket.buyer.later == SECOND:
            self._pay(self._another_session(basket, basket.amount_minor), SUCCEED, basket.buyer)
        elif basket.buyer.later == DISPUTE:
            self._dispute(charge["charge_id"], buyer_key=basket.buyer.key)
        else:
            amount = "" if basket.buyer.later == ALL_BACK else "1234"
            self._outside.post(f"/stripe/charges/{charge['charge_id']}/refund", data={"amount": amount})
        self._tally.add(f"customers with a {basket.buyer.later}")

    def _dispute(self, charge_id: str, buyer_key: str) -> None:
        """Have the bank take the money back, and in two of three cases decide at once."""
        made = self._outside.post("/sandbox/stripe/disputes", json={"charge": charge_id}).json()
        outcome = ("", "won", "lost")[sum(buyer_key.encode()) % 3]
        if outcome and "id" in made:
            self._outside.post(f"/sandbox/stripe/disputes/{made['id']}/close", json={"outcome": outcome})
            self._tally.add(f"disputes {outcome}")

    def look(self, basket: Basket) -> None:
        """Look at the order page, which makes the shop ask about a payment it has not heard of."""
        path, headers = f"/v1/orders/{basket.order_id}", {"Authorization": f"Bearer {basket.token}"}
        try:
            self._api.get(path, headers=headers)
        except httpx.HTTPError:
            return

    def _place(self, buyer: Buyer) -> Basket | None:
        """Place the order; after a while without success begin anew, as somebody who loads the page again does."""
        for visit in range(_VISITS):
            basket = self._visit(buyer, f"{buyer.key}-{visit}")
            if basket is not None:
                return basket
        return None

    def _visit(self, buyer: Buyer, key: str) -> Basket | None:
        lines = [{"package_id": package_id, "quantity": quantity} for package_id, quantity in buyer.items]
        body, headers = {"items": lines, "email": f"{key}@example.com"}, {"Idempotency-Key": key}
        until = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                answer = self._api.post("/v1/checkout", json=body, headers=headers)
            except httpx.HTTPError:
                self._tally.add("checkouts without an answer, sent again")
                time.sleep(0.1)
                continue
            if answer.status_code == httpx.codes.CREATED:
                made = answer.json()
                session = urlsplit(made["checkout_url"]).path.rsplit("/", 1)[-1]
                return Basket(buyer, made["order_id"], made["order_token"], session, int(made["amount_minor"]))
            self._tally.add(f"checkouts answered {answer.status_code}, sent again")
            time.sleep(0.1)
        return None

    def _pay(self, session_id: str, outcome: str, buyer: Buyer) -> None:
        body = {"outcome": outcome, "webhooks": dict(buyer.webhooks), "after_s": 0.3}
        self._outside.post(f"/sandbox/stripe/pay/{session_id}", json=body).raise_for_status()

    def _another_session(self, basket: Basket, amount_minor: int) -> str:
        """Open a second payment page for the same order, as a support desk's payment link would be one."""
        form = {
            "mode": "payment",
            "success_url": "http://127.0.0.1/ok",
            "client_reference_id": basket.order_id,
            "metadata[order_id]": basket.order_id,
            "payment_intent_data[metadata][order_id]": basket.order_id,
            "line_items[0][quantity]": "1",
            "line_items[0][price_data][currency]": "usd",
            "line_items[0][price_data][unit_amount]": str(amount_minor),
            "line_items[0][price_data][product_data][name]": "The same order again",
        }
        headers = {"Authorization": f"Bearer {_STRIPE_KEY}"}
        for _ in range(50):  # a fault may answer instead
            answer = self._outside.post("/stripe/v1/checkout/sessions", data=form, headers=headers)
            if answer.is_success:
                return str(answer.json()["id"])
        answer.raise_for_status()
        raise AssertionError("unreachable: an unsuccessful answer raises")

    def _charge_of(self, basket: Basket) -> Json | None:
        rows = self._outside.get("/sandbox/charges").raise_for_status().json()["charges"]
        return next((row for row in rows if row["session_id"] == basket.session_id), None)
