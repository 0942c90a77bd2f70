"""Where the workers of one process write about their purchases: each step of many units goes out in one transaction.

intents -> clearances -> deliveries -> health. A worker that is alone waits for nobody; see `resources.db.together`.
The more units are in work, the longer each step waits for company: a transaction costs the processor nearly the same
for one unit and for ten, and a shop that spends it on single units has none left for the payments that come in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from esim.ports import Clock, Provider
from esim.purchase import Outcome
from resources.db.candidates import Candidates, UnitSale, candidates
from resources.db.databases import at_once
from resources.db.deliveries import Delivery, deliver_together
from resources.db.intents import Clearance, Intent, clear_intents, write_intents
from resources.db.provider_state import note_outcomes
from resources.db.together import STORE_AWAY, Together
from resources.db.vault import Vault

GAP_SECONDS_A_UNIT, MOST_GAP_SECONDS = 0.002, 0.04


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """How the offers for a unit are sorted, and what an order may lose at most, in US cents."""

    failover_order: str
    allowed_loss_minor_usd: int


class PurchaseDesk:
    """The store's side of buying, shared by all workers of a process."""

    def __init__(
        self, engine: Engine, vault: Vault, clock: Clock, providers: Mapping[str, Provider], trial: TrialOrder
    ) -> None:
        self.engine, self.vault, self.clock, self.providers = engine, vault, clock, providers
        self._at_once = at_once(engine)
        self._trial = trial
        self.in_work = 0  # units: the drain says how many
        self.intents = Together[Intent, int | None](self._write_intents, gap=self.gap)
        self.clearances = Together[Clearance, bool](self._clear, gap=self.gap)
        self.health = Together[tuple[str, Outcome, datetime], bool](self._note, gap=self.gap)
        self._deliveries = Together[Delivery, bool](self._deliver, gap=self.gap)

    def offers(self, sales: Sequence[UnitSale]) -> list[Candidates]:
        """Return what each unit that was sold may be bought from now."""
        with self._at_once.connect() as conn:
            return candidates(
                conn,
                sales,
                failover_order=self._trial.failover_order,
                allowed_loss_minor_usd=self._trial.allowed_loss_minor_usd,
                now=self.clock(),
            )

    def deliver(self, delivery: Delivery) -> bool:
        """Deliver an eSIM together with others; False where the case needs more than that.

        Raises:
            sqlalchemy.exc.OperationalError: the store is away; nothing was written.
        """
        try:
            return self._deliveries.submit(delivery)
        except STORE_AWAY:
            raise
        except Exception:  # noqa: BLE001 - what a batch cannot hold, the careful way looks at alone
            return False

    def gap(self) -> float:
        """Return the seconds that lie between two batches of a kind by now."""
        return min(MOST_GAP_SECONDS, GAP_SECONDS_A_UNIT * max(0, self.in_work - 1))

    def _write_intents(self, intents: Sequence[Intent]) -> list[int | None]:
        with self._at_once.connect() as conn:
            return write_intents(conn, intents)

    def _clear(self, clearances: Sequence[Clearance]) -> list[bool]:
        with self._at_once.connect() as conn:
            return clear_intents(conn, clearances)

    def _note(self, outcomes: Sequence[tuple[str, Outcome, datetime]]) -> list[bool]:
        return note_outcomes(self.engine, outcomes)

    def _deliver(self, deliveries: Sequence[Delivery]) -> list[bool]:
        return deliver_together(self.engine, self.vault, deliveries)
