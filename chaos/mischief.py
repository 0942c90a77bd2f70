"""Which faults are put in force, drawn from the seed: a few at a time at each provider, at Stripe and in the mail."""

from random import Random
from typing import Any

from resources.settings import PROVIDERS

Json = dict[str, Any]

# kind -> parameters to choose from. What strikes a purchase:
ON_ORDERS: dict[str, tuple[Json, ...]] = {
    "timeout_before": ({"seconds": 5},),
    "timeout_after": ({"seconds": 5},),
    "reset_before": ({},),
    "reset_after": ({},),
    "error_status": ({"status": 500}, {"status": 503}),
    "error_after": ({"status": 503}, {"status": 500}),
    "slow": ({"seconds": 0.3}, {"seconds": 1.2}),  # the second one is longer than we wait
    "malformed": ({},),
    "html": ({},),
    "html_after": ({},),
    "ok_with_error": ({},),
    "refuse": ({},),
    "out_of_stock": ({},),
    "insufficient_balance": ({},),
    "rate_limited": ({},),
    "unauthorised": ({},),
    "price_change": ({"percent": 20}, {"percent": 20}, {"percent": 3_000}),
    "delisted": ({"share": 0.5},),
    "fail_after_accept": ({},),
    "async_never": ({},),
    "async_late": ({"seconds": 1.0}, {"seconds": 4.0}),
    "async_twice": ({},),
}
ON_ORDERS_OF: dict[str, tuple[str, ...]] = {
    "esim_access": ("duplicate_code", "guard_first"),
    "esim_card": ("instant", "delayed"),
    "mobimatter": ("upstream_down",),
}
# What strikes the reading of what became of a purchase:
ON_LOOK_UPS: dict[str, tuple[Json, ...]] = {
    "error_status": ({"status": 500},),
    "timeout_before": ({"seconds": 5},),
    "reset_before": ({},),
    "malformed": ({},),
    "html": ({},),
    "rate_limited": ({},),
    "slow": ({"seconds": 0.3},),
}
# No accident, but how a provider is while it lasts:
_PROPERTIES = frozenset({"price_change", "guard_first"})
# What these do outlasts them: an offer rests for half an hour, a provider until it is funded, a refund for a day.
_LASTING = frozenset({"out_of_stock", "insufficient_balance", "delisted", "price_change"})
_NOBODY_SELLS = 0.3  # how often all of them withdraw their plans for a moment: what is tried then is refunded
_LAST_REFUSALS = 6
ON_WEBHOOKS = ("webhook_lost", "webhook_duplicate", "webhook_reorder")
_ON_STRIPE: tuple[Json, ...] = (
    {"kind": "webhook_lost", "times": 2},
    {"kind": "webhook_duplicate", "times": 5, "params": {"copies": 3}},
    {"kind": "webhook_duplicate", "times": 5, "params": {"copies": 5}},
    {"kind": "webhook_reorder", "times": 5},
    {"kind": "webhook_delay", "times": 5, "params": {"seconds": 1.0}},
    {"kind": "api_error", "times": 3, "params": {"status": 500, "when": "before"}},
    {"kind": "api_error", "times": 3, "params": {"status": 500, "when": "after"}},
    {"kind": "api_error", "times": 2, "params": {"status": 500, "when": "stored"}},
    {"kind": "api_timeout", "times": 2, "params": {"seconds": 0.3, "when": "after"}},
)
# So often that the payment service's library, which tries a call three times, gives up on one or two refunds.
_ON_REFUNDS: tuple[Json, ...] = (
    {"kind": "refund_error", "times": 7, "params": {"status": 503, "when": "before"}},
    {"kind": "refund_error", "times": 7, "params": {"status": 503, "when": "after"}},
    {"kind": "refund_error", "times": 7, "params": {"status": 500, "when": "stored"}},
    {"kind": "api_timeout", "times": 7, "params": {"seconds": 0.3, "when": "after", "paths": ["/v1/refunds"]}},
    {"kind": "api_timeout", "times": 7, "params": {"seconds": 0.3, "when": "before", "paths": ["/v1/refunds"]}},
)
_ON_MAIL: tuple[Json, ...] = (
    {"kind": "error_status", "times": 4, "params": {"status": 500, "when": "before"}},
    {"kind": "error_status", "times": 4, "params": {"status": 500, "when": "after"}},
    {"kind": "timeout", "times": 2, "params": {"seconds": 0.3, "when": "after"}},
)


def provider_faults(rng: Random, *, lasting: bool = True) -> list[Json]:
    """Draw the faults of one round: about two for each provider's purchases, and some around them.

    `lasting` ones are left out where there is no clock to leap with.
    """
    faults = []
    for slug in PROVIDERS:
        kinds = [*ON_ORDERS, *ON_ORDERS_OF.get(slug, ())]
        kinds = [kind for kind in kinds if lasting or kind not in _LASTING]
        for kind in rng.sample(kinds, rng.choices((0, 1, 2, 3), (1, 3, 3, 1))[0]):
            params = rng.choice(ON_ORDERS.get(kind, ({},)))
            call = "*" if kind == "price_change" else "order"  # a price moves everywhere, and for long
            times = None if kind in _PROPERTIES else rng.randint(1, 4)
            faults.append(_fault(slug, call, kind, times, rng.choice((0.5, 1.0)) if times else 1.0, params))
        if rng.random() < 0.3:
            kind = rng.choice(list(ON_LOOK_UPS))
            params = rng.choice(ON_LOOK_UPS[kind])
            faults.append(_fault(slug, rng.choice(("status", "balance")), kind, rng.randint(1, 6), 0.7, params))
        if rng.random() < 0.3:
            faults.append(_fault(slug, "webhook", rng.choice(ON_WEBHOOKS), rng.randint(1, 5), 1.0, {}))
        if rng.random() < 0.1:
            faults.append(_fault(slug, "login", rng.choice(("unauthorised", "error_status")), 1, 1.0, {}))
    if rng.random() < _NOBODY_SELLS:
        kind, params = ("delisted", {"share": 1.0}) if lasting else ("refuse", {})
        faults += [_fault(slug, "order", kind, 25, 1.0, params) for slug in PROVIDERS]
    return faults


def other_faults(rng: Random, *, lasting: bool = True) -> list[tuple[str, Json]]:
    """Draw faults of Stripe and of the mail carrier: (`stripe` or `mail`, fault)."""
    found: list[tuple[str, Json]] = []
    on_stripe, on_refunds = (
        [fault for fault in faults if lasting or fault.get("params", {}).get("when") != "stored"]
        for faults in (_ON_STRIPE, _ON_REFUNDS)
    )
    if rng.random() < 0.7:
        found += [("stripe", fault) for fault in rng.sample(on_stripe, 2)]
    if rng.random() < 0.6:
        found.append(("stripe", rng.choice(on_refunds)))
    if rng.random() < 0.4:
        found.append(("mail", rng.choice(_ON_MAIL)))
    return found


def last_gust(rng: Random) -> tuple[list[Json], Json]:
    """Draw what is in force when everything else is over: all providers refuse some purchases, and refunds fail.

    It ends by itself: each provider refuses so often, and then sells again.
    """
    refusals = [_fault(slug, "order", "refuse", _LAST_REFUSALS, 1.0, {}) for slug in PROVIDERS]
    return refusals, rng.choice(_ON_REFUNDS)


def _fault(slug: str, call: str, kind: str, times: int | None, probability: float, params: Json) -> Json:
    return {
        "provider": slug,
        "call": call,
        "kind": kind,
        "times": times,
        "probability": probability,
        "params": dict(params),
    }
