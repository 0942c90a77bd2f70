"""What becomes of an order that was accepted but not yet fulfilled: when, how often it is told, whether it fails.

The fate is drawn from the faults when the order is taken and kept with it, so a restart of the sandbox goes on with it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from sandbox.providers.ledger import Ledger, Order
from sandbox.providers.site import Ask


@dataclass(frozen=True, slots=True)
class Fate:
    """The future of one accepted order; `seconds` is None when it never comes, `held` when a fault delays it.

    `refunded` tells whether one that fails is paid back, where a provider's contract leaves that open.
    """

    seconds: float | None
    fails: bool = False
    copies: int = 1
    held: bool = False
    refunded: bool = True


def draw(ask: Ask) -> Fate:
    """Decide an order's fate by the faults in force."""
    if ask.fault("async_never"):
        return Fate(None, held=True)
    late = ask.fault("async_late")
    seconds = late.number("seconds", 30) if late else ask.world.config.async_seconds
    copies = 2 if ask.fault("async_twice") else 1
    fails = ask.fault("fail_after_accept")
    refunded = fails is None or fails.params.get("refund") is not False
    return Fate(seconds, fails is not None, copies, late is not None, refunded)


class Unfinished:
    """Carries out fates; `finish` fulfils an order and tells of it, or fails it."""

    def __init__(self, ledger: Ledger, finish: Callable[[Order, Fate], None]) -> None:
        self._ledger = ledger
        self._finish = finish
        ledger.world.on_start(self._resume)

    def add(self, order: Order, fate: Fate) -> None:
        """Let an order meet its fate."""
        order.extra["fate"] = asdict(fate)
        if fate.seconds is not None:
            self._ledger.world.later(fate.seconds, lambda: self._meet(order, fate), f"{self._ledger.slug} order")

    async def _meet(self, order: Order, fate: Fate) -> None:
        self._finish(order, fate)

    async def _resume(self) -> None:
        for order in self._ledger.orders.values():
            if order.state == "processing" and "fate" in order.extra:
                self.add(order, Fate(**order.extra["fate"]))
