"""Which faults must have struck which provider for a campaign to have tried all of them, and which never did.

Every kind that is drawn for one provider is required of each whose contract has it, as our adapter speaks it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos.mischief import ON_LOOK_UPS, ON_ORDERS, ON_ORDERS_OF, ON_WEBHOOKS
from resources.settings import PROVIDERS

EVERY_CALL = "*"
Row = tuple[str, str, tuple[str, ...]]  # call, kind, and the providers whose contract has it
_SELL_AT_ONCE = frozenset({"airalo"})  # what they accept, they deliver in the same answer
_TELL = ("esim_access",)  # who call us back about an order
_SIGN_IN = ("airalo", "esim_card")
_UNFINISHED = frozenset({"async_never", "async_late", "async_twice", "fail_after_accept"})
_NOT_SPOKEN = frozenset({"delayed"})  # of a call that our adapter makes for top-ups only
_LOGINS = ("unauthorised", "error_status")


@dataclass(frozen=True, slots=True)
class Strike:
    """One kind of fault at one call of one provider."""

    provider: str
    call: str
    kind: str

    def times(self, struck: Mapping[str, int]) -> int:
        """Return how often it struck, by the sandbox's own count."""
        if self.call != EVERY_CALL:
            return struck.get(f"{self.provider} {self.call} {self.kind}", 0)
        return sum(times for name, times in struck.items() if self._is(name))

    def _is(self, name: str) -> bool:
        provider, _, rest = name.partition(" ")
        return provider == self.provider and rest.endswith(f" {self.kind}")


def rows() -> Iterator[Row]:
    """Yield every call and kind, with the providers whose contract has it."""
    for kind in ON_ORDERS:
        call = EVERY_CALL if kind == "price_change" else "order"  # some ask for the price before they buy
        yield call, kind, tuple(slug for slug in PROVIDERS if _has(slug, kind))
    for slug, kinds in ON_ORDERS_OF.items():
        yield from (("order", kind, (slug,)) for kind in kinds if kind not in _NOT_SPOKEN)
    for kind in ON_LOOK_UPS:
        yield "status", kind, tuple(slug for slug in PROVIDERS if _has(slug, kind))
    for kind in ON_WEBHOOKS:
        yield "webhook", kind, _TELL
    for kind in _LOGINS:
        yield "login", kind, _SIGN_IN


def required() -> list[Strike]:
    """Return everything that must have struck."""
    return [Strike(slug, call, kind) for call, kind, slugs in rows() for slug in slugs]


def table(struck: Mapping[str, int]) -> list[str]:
    """Return how often each fault struck each provider, and what never struck, as lines of a report."""
    lines = ["", f"| required fault | {' | '.join(PROVIDERS)} |", f"|---|{'---:|' * len(PROVIDERS)}"]
    for call, kind, slugs in rows():
        cells = [f"{Strike(slug, call, kind).times(struck):,}" if slug in slugs else "" for slug in PROVIDERS]
        lines.append(f"| {call} {kind} | {' | '.join(cells)} |")
    missing = never_struck(struck)
    return [*lines, "", f"Never struck: {', '.join(missing) or 'none of the required faults'}"]


def never_struck(struck: Mapping[str, int], wanted: Sequence[Strike] = ()) -> list[str]:
    """Return what did not strike of what is wanted, or of everything that is required."""
    return [f"{s.provider} {s.call} {s.kind}" for s in wanted or required() if not s.times(struck)]


def _has(slug: str, kind: str) -> bool:
    if kind == "rate_limited":
        return slug != "mobimatter"  # publishes no limit
    if kind == "async_twice":
        return slug in {*_TELL, "mobimatter"}
    return kind not in _UNFINISHED or slug not in _SELL_AT_ONCE
