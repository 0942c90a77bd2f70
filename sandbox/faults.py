"""Faults on demand: which provider's call misbehaves, how, how often.

The book only decides *whether* a fault strikes; what a kind does is up to the code that takes it. A fault counts down
(`times`) only when it really strikes, so one meant for an order is not used up by a login.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SLUGS = ("airalo", "esim_access", "esim_go", "mobimatter", "esim_card")
CALLS = ("catalogue", "order", "status", "usage", "balance", "topup", "cancel", "login", "webhook")

KINDS: dict[str, str] = {
    "error_status": "answers params.status (default 500); nothing is bought",
    "error_after": "buys, then answers params.status (default 503)",
    "refuse": "the provider's own clear refusal",
    "out_of_stock": "the provider's answer for a plan that is sold out",
    "insufficient_balance": "the provider's answer for an empty wallet",
    "upstream_down": "MobiMatter's 455: the network behind it is down",
    "rate_limited": "the provider's own 429",
    "unauthorised": "the provider's answer for a bad or expired credential",
    "timeout_before": "hangs params.seconds (60), then drops the connection; nothing is bought",
    "timeout_after": "buys, hangs params.seconds (60), then drops the connection",
    "reset_before": "closes the connection without an answer; nothing is bought",
    "reset_after": "buys, then closes the connection without an answer",
    "slow": "answers after params.seconds (5)",
    "malformed": "does the work, then answers half a JSON",
    "html": "answers an HTML page with status 200; nothing is bought",
    "html_after": "buys, then answers an HTML page with status 200",
    "ok_with_error": "status 200 with an error inside; nothing is bought",
    "price_change": "prices move by params.percent (20), for params.package_ids or for all",
    "negative_price": "the first plan of a catalogue page has a negative price",
    "zero_price": "the first plan of a catalogue page costs nothing",
    "huge_name": "the first plan of a catalogue page has a name of params.bytes (10,000,000)",
    "endless_pages": "the catalogue never ends",
    "foreign_currency": "amounts in params.currency (EUR)",
    "broken_plan": "params.count (1) plans of a catalogue page lack what makes them readable",
    "delisted": "params.package_ids, or params.share (0.25) of the plans, are withdrawn",
    "bare_array": "eSIM Go answers lists without their wrapper",
    "empty_catalogue": "a catalogue without a single plan",
    "duplicate_code": "eSIM Access refuses a repeated transactionId with 310402 instead of replaying",
    "guard_first": "eSIM Access checks package and price before it knows a repeated transactionId",
    "fail_after_accept": "accepts the order, which then fails; params.refund false: eSIM Access keeps the money",
    "async_never": "an accepted order is never finished",
    "async_late": "an accepted order is finished after params.seconds (30)",
    "async_twice": "the callback of an accepted order comes twice",
    "instant": "eSIMCard fulfils at once",
    "delayed": "eSIMCard accepts without any id",
    "webhook_lost": "callbacks are not sent",
    "webhook_duplicate": "callbacks are sent twice",
    "webhook_reorder": "a callback is held back until the next one is out, or params.seconds (2)",
}


class BadFaultError(ValueError):
    """A fault asks for something that does not exist; the message names what does."""


@dataclass(slots=True)
class Fault:
    """One fault as asked for; `left` is None when it strikes without end."""

    provider: str
    call: str
    kind: str
    probability: float = 1.0
    left: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    struck: int = 0

    def number(self, name: str, default: float) -> float:
        """A numeric parameter."""
        value = self.params.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return default
        return float(value)

    def names(self, name: str) -> frozenset[str]:
        """A parameter that lists texts; empty when it was not given."""
        value = self.params.get(name)
        return frozenset(str(entry) for entry in value) if isinstance(value, list) else frozenset()

    def as_json(self) -> dict[str, Any]:
        """The fault as the control routes show it."""
        return {
            "provider": self.provider,
            "call": self.call,
            "kind": self.kind,
            "times": self.left,
            "probability": self.probability,
            "params": self.params,
            "struck": self.struck,
        }


class FaultBook:
    """The faults in force; asking costs nothing while there are none."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._faults: list[Fault] = []
        self.struck: Counter[str] = Counter()  # "provider call kind" -> how often, of faults that are over too
        self.targets: dict[str, tuple[str, ...]] = dict.fromkeys(SLUGS, CALLS)
        self.kinds: dict[str, str] = dict(KINDS)

    def allow(self, target: str, calls: Iterable[str], kinds: Mapping[str, str] | None = None) -> None:
        """Let another part of the sandbox (Stripe, mail) be a target too, with kinds of its own."""
        self.targets[target] = tuple(calls)
        self.kinds.update(kinds or {})

    def add(self, wanted: Mapping[str, Any]) -> Fault:
        """Put one fault in force, replacing one of the same provider, call and kind; raises BadFaultError."""
        fault = self.check(wanted)
        self._faults = [
            f for f in self._faults if (f.provider, f.call, f.kind) != (fault.provider, fault.call, fault.kind)
        ]
        self._faults.append(fault)
        return fault

    def check(self, wanted: Mapping[str, Any]) -> Fault:
        """Read a fault without putting it in force; BadFaultError names what is allowed."""
        unknown = set(wanted) - {"provider", "call", "kind", "times", "probability", "params", "struck"}
        if unknown:
            raise BadFaultError(
                f"unknown field {sorted(unknown)}; a fault has provider, call, kind, times, probability, params"
            )
        provider, call, kind = wanted.get("provider", "*"), wanted.get("call", "*"), wanted.get("kind")
        if provider != "*" and provider not in self.targets:
            raise BadFaultError(f"unknown provider {provider!r}; allowed: *, {', '.join(self.targets)}")
        calls = (
            sorted({c for group in self.targets.values() for c in group}) if provider == "*" else self.targets[provider]
        )
        if call != "*" and call not in calls:
            raise BadFaultError(f"unknown call {call!r} of {provider}; allowed: *, {', '.join(calls)}")
        if kind not in self.kinds:
            raise BadFaultError(f"unknown kind {kind!r}; allowed: {', '.join(self.kinds)}")
        times, probability, params = wanted.get("times"), wanted.get("probability", 1.0), wanted.get("params")
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
            raise BadFaultError(f"times must be a whole number from 1, or null for always; not {times!r}")
        if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability <= 1:
            raise BadFaultError(f"probability must lie between 0 and 1; not {probability!r}")
        if params is not None and not isinstance(params, dict):
            raise BadFaultError(f"params must be an object; not {params!r}")
        return Fault(str(provider), str(call), str(kind), float(probability), times, dict(params or {}))

    def take(self, provider: str, call: str, *kinds: str, step: str = "", only_named: bool = False) -> Fault | None:
        """Return the fault of one of these kinds that strikes this call now, and count it down; else None.

        `step` names a part of a call that takes several requests; a fault with params.step strikes only there, one
        without it anywhere unless `only_named`.
        """
        if not self._faults:
            return None
        for fault in self._faults:
            if fault.kind not in kinds or fault.provider not in {provider, "*"} or fault.call not in {call, "*"}:
                continue
            if not self._strikes(fault, step, only_named):
                continue
            fault.struck += 1
            self.struck[f"{provider} {call} {fault.kind}"] += 1
            if fault.left is not None:
                fault.left -= 1
                if fault.left == 0:
                    self._faults.remove(fault)
            return fault
        return None

    def _strikes(self, fault: Fault, step: str, only_named: bool) -> bool:
        asked = fault.params.get("step")
        if asked != step and (asked is not None or only_named):
            return False
        return fault.probability >= 1 or self._rng.random() < fault.probability

    def active(self, provider: str, call: str, *kinds: str) -> bool:
        """Whether a fault of one of these kinds is in force, without using it up."""
        return any(
            fault.kind in kinds and fault.provider in {provider, "*"} and fault.call in {call, "*"}
            for fault in self._faults
        )

    def clear(self) -> None:
        """Take every fault out of force."""
        self._faults.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """All faults in force."""
        return [fault.as_json() for fault in self._faults]
