"""What the Stripe sandbox remembers: objects by id, idempotency keys, event deliveries and the faults in force.

One `StripeState` per `World`; it survives a restart where the sandbox keeps a state file.
"""

import os
from dataclasses import dataclass, field
from typing import Any

from sandbox.config import BadSettingError
from sandbox.stripe.session_objects import Json
from sandbox.switches import Switches
from sandbox.world import World

KINDS = {
    "webhook_lost": "an event is never sent; params.types narrows it to some event types",
    "webhook_duplicate": "an event is sent params.copies (2) times, all at once; params.types",
    "webhook_reorder": "the events of one payment go out in reverse order",
    "webhook_delay": "an event is sent after params.seconds (2); params.types",
    "api_error": "any call answers params.status (500); params.when is before, after or stored; params.paths",
    "api_timeout": "any call hangs params.seconds (60), then drops; params.when is before or after; params.paths",
    "session_error": "creating a session answers params.status (500), as api_error",
    "refund_error": "creating a refund answers params.status (500), as api_error",
}
KEPT = ("sessions", "line_items", "intent_data", "intents", "charges", "refunds", "disputes", "transactions", "events")
PREFIX_TABLES = {
    "cs": "sessions",
    "pi": "intents",
    "ch": "charges",
    "py": "charges",
    "re": "refunds",
    "du": "disputes",
    "txn": "transactions",
    "evt": "events",
}


@dataclass
class Delivery:
    """How far the webhook of one event has come: waiting, delivered, failed or lost."""

    state: str = "waiting"
    attempts: int = 0
    last_result: str = ""
    next_in: float | None = None


@dataclass
class SavedAnswer:
    """What the first request with an idempotency key got."""

    fingerprint: str
    at: int
    answer: tuple[int, Json]
    request_id: str


@dataclass
class StripeState:
    """One Stripe account in test mode."""

    world: World
    secret_key: str
    webhook_secret: str
    webhook_retries: int
    faults: Switches
    sessions: dict[str, Json] = field(default_factory=dict)
    line_items: dict[str, Any] = field(default_factory=dict)
    intent_data: dict[str, Json] = field(default_factory=dict)
    intents: dict[str, Json] = field(default_factory=dict)
    charges: dict[str, Json] = field(default_factory=dict)
    refunds: dict[str, Json] = field(default_factory=dict)
    disputes: dict[str, Json] = field(default_factory=dict)
    transactions: dict[str, Json] = field(default_factory=dict)
    events: dict[str, Json] = field(default_factory=dict)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    saved: dict[str, SavedAnswer] = field(default_factory=dict)

    def now(self) -> int:
        """Unix seconds by the sandbox's clock."""
        return int(self.world.clock().timestamp())

    def table_of(self, object_id: str) -> dict[str, Json]:
        """The table an id belongs to by its prefix; empty for an unknown prefix."""
        name = PREFIX_TABLES.get(object_id.partition("_")[0])
        table: dict[str, Json] = getattr(self, name) if name else {}
        return table

    def session_of(self, intent_id: str | None) -> Json | None:
        """The session that a payment intent was made for."""
        intent = self.intents.get(intent_id or "")
        return self.sessions.get(intent["payment_details"]["order_reference"]) if intent else None

    def clear(self) -> None:
        """Forget everything, faults included."""
        for name in KEPT:
            getattr(self, name).clear()
        self.deliveries.clear()
        self.saved.clear()
        self.faults.clear()

    def dump(self) -> Json:
        """The objects as plain JSON, for the sandbox's state file."""
        kept: Json = {name: getattr(self, name) for name in KEPT}
        kept["deliveries"] = {event_id: vars(delivery) for event_id, delivery in self.deliveries.items()}
        kept["saved"] = {key: vars(record) for key, record in self.saved.items()}
        return kept

    def load(self, kept: Json) -> None:
        """Take back what `dump` gave."""
        for name in KEPT:
            getattr(self, name).update(kept[name])
        for event_id, fields in kept["deliveries"].items():
            self.deliveries[event_id] = Delivery(**fields)
        for key, fields in kept["saved"].items():
            status, body = fields["answer"]
            self.saved[key] = SavedAnswer(**{**fields, "answer": (status, body)})


def _make(world: World) -> StripeState:
    faults = Switches(world.rng("stripe faults"), "stripe", KINDS)
    secrets = os.environ.get("STRIPE_WEBHOOK_SECRET", "")
    state = StripeState(
        world=world,
        secret_key=os.environ.get("STRIPE_SECRET_KEY") or "sk_test_sandbox",
        webhook_secret=secrets.split(",")[0].strip() or "whsec_sandbox",
        webhook_retries=_retries(os.environ.get("SANDBOX_WEBHOOK_RETRIES") or "12"),
        faults=faults,
    )
    world.on_reset(state.clear)
    world.keep("stripe", state.dump, state.load)
    return state


def _retries(text: str) -> int:
    if not text.isdecimal():
        raise BadSettingError(f"SANDBOX_WEBHOOK_RETRIES={text!r} is not a whole number")
    return int(text)


def state_of(world: World) -> StripeState:
    """The Stripe account of this sandbox."""
    return world.part(StripeState, _make)


def clear_faults(world: World) -> None:
    """Take every Stripe fault out of force."""
    state_of(world).faults.clear()
