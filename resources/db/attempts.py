"""The journal of one unit's purchase in Postgres: intent, clearance to send and outcome, each its own commit.

Two unique indexes are the last line of defence: one open or successful attempt per unit, and one open attempt per
slot of a provider that must be asked one at a time. What became of a purchase is written again and again for a
minute when the store is away: it is the only fact here that cannot be had twice.
"""

import secrets
import string
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

import stamina
from sqlalchemy import Connection, Row, select

from esim.errors import LeaseLost
from esim.money import Cost
from esim.ports import Provider, Serialise
from esim.provisioning import BuyableOffer, Skipped
from esim.purchase import Evidence, Outcome, Provisioned, PurchaseRequest
from resources.db.deliveries import Delivery
from resources.db.intents import Clearance, Intent, write_intents
from resources.db.leases import holds_lease, lock_unit
from resources.db.order_store import LEASE_SECONDS, Claim
from resources.db.provider_state import take_probe
from resources.db.purchase_desk import PurchaseDesk
from resources.db.settlement import Scribe, keep_outcome
from resources.db.tables import OPEN_STATES, purchase_attempts
from resources.db.together import STORE_AWAY
from resources.db.transitions import is_held

SEND_MARGIN_SECONDS = 20.0  # a request may wait this long for a rate limit and a connection before it leaves
OUTCOME_PATIENCE_SECONDS = 60.0
_ALPHABET = string.ascii_lowercase + string.digits


class Lease:
    """How long one claim lasts, on this process's own clock, so that a paused process notices when it wakes."""

    def __init__(self, claim: Claim, taken_at: float) -> None:
        self.claim = claim
        self._until = taken_at + LEASE_SECONDS

    def extended(self, at: float) -> None:
        """Note that the store prolonged the lease; `at` is the monotonic time before it was asked."""
        self._until = at + LEASE_SECONDS

    @property
    def remaining_seconds(self) -> float:
        """How much of the lease is left."""
        return self._until - monotonic()


@dataclass(frozen=True, slots=True)
class UnitJournal:
    """An `esim.provisioning.Journal` for one claimed unit; what several units write at once goes out together."""

    desk: PurchaseDesk
    lease: Lease
    run_id: str | None = None
    attempts: dict[str, int] = field(default_factory=dict)  # reference -> attempt id

    @property
    def claim(self) -> Claim:
        """The claim this journal writes for."""
        return self.lease.claim

    def begin(self, offer: BuyableOffer, failover_step: int) -> PurchaseRequest | Skipped:
        """Commit the intent to buy `offer`, or say why it cannot be tried now.

        Raises:
            LeaseLost: the unit is another worker's by now, or a purchase of it is open already.
        """
        now, reference = self.desk.clock(), new_reference()
        intent = self._intent(offer, failover_step, reference, now)
        # A probe of a half-open circuit is claimed with its intent, alone; so is what the batch could not write.
        attempt_id = None if offer.half_open else self.desk.intents.submit(intent)
        if attempt_id is None:
            written = self._begin_alone(offer, intent, now)
            if isinstance(written, Skipped):
                return written
            attempt_id = written
        self.attempts[reference] = attempt_id
        return PurchaseRequest(
            reference=reference,
            provider_package_id=offer.provider_package_id,
            expected_cost=offer.expected_cost,
            cost_ceiling=offer.cost_ceiling,
            started_at=now,
            hints=offer.hints,
            package_name=offer.name,
        )

    def prepared(self, request: PurchaseRequest, evidence: Evidence) -> Skipped | None:
        """Commit that the purchase may be on the wire from now on, or say that its order is held by now.

        Raises:
            LeaseLost: the unit is not this worker's any more, or its lease is over.
        """
        claim = self.claim
        clearance = Clearance(request.reference, claim.fence, claim.owner, self.desk.clock(), dict(evidence))
        if self.desk.clearances.submit(clearance):
            return None
        with self.desk.engine.begin() as conn:
            if self._is_ours(conn) and is_held(conn, claim.order_id):
                return Skipped.HELD
        raise LeaseLost(f"unit {claim.esim_id} is another worker's; its purchase was not sent")

    def may_send(self) -> None:
        """Refuse to send anything when the lease is nearly over on this process's own clock.

        Raises:
            LeaseLost: less than twenty seconds are left; the process was paused, or cannot reach the store.
        """
        if self.lease.remaining_seconds < SEND_MARGIN_SECONDS:
            raise LeaseLost(f"the lease on unit {self.claim.esim_id} is nearly over; its purchase was not sent")

    def conclude(self, request: PurchaseRequest, outcome: Outcome, latency_ms: int) -> None:
        """Commit what became of the purchase, waiting up to a minute for a store that is away."""
        attempt_id = self.attempts[request.reference]
        for attempt in stamina.retry_context(
            on=STORE_AWAY, attempts=None, timeout=OUTCOME_PATIENCE_SECONDS, wait_initial=0.1, wait_max=5.0
        ):
            with attempt:
                self._keep(attempt_id, outcome, latency_ms)

    def _keep(self, attempt_id: int, outcome: Outcome, latency_ms: int) -> None:
        desk, actor, now = self.desk, self.claim.owner, self.desk.clock()
        if isinstance(outcome, Provisioned):
            plain = Delivery(attempt_id, outcome, self.claim.order_id, actor, now, self.run_id, latency_ms)
            if desk.deliver(plain):
                return
        keep_outcome(desk.engine, attempt_id, outcome, Scribe(desk.vault, actor, now, self.run_id), latency_ms)

    def _begin_alone(self, offer: BuyableOffer, intent: Intent, now: datetime) -> int | Skipped:
        with self.desk.engine.begin() as conn:
            # Whoever holds an order locks its units: what is read here stands until the intent is committed.
            if not self._is_ours(conn):
                raise LeaseLost(f"unit {self.claim.esim_id} is another worker's")
            if is_held(conn, self.claim.order_id) and not self._has_purchase(conn):
                return Skipped.HELD
            if offer.half_open and not take_probe(conn, offer.provider, now):
                return Skipped.CIRCUIT_OPEN
            if attempt_id := write_intents(conn, [intent])[0]:
                return attempt_id
            if intent.slot is not None and not self._has_purchase(conn):
                return Skipped.SLOT_BUSY
        raise OpenAttemptFound(f"unit {self.claim.esim_id} has an open purchase; it is looked up first")

    def _is_ours(self, conn: Connection) -> bool:
        return holds_lease(lock_unit(conn, self.claim.esim_id), self.claim)

    def _has_purchase(self, conn: Connection) -> bool:
        """Return whether a purchase of the unit is open or succeeded: it is looked up before anything else."""
        a = purchase_attempts.c
        live = select(a.attempt_id).where(a.esim_id == self.claim.esim_id, a.state.in_((*OPEN_STATES, "provisioned")))
        return conn.scalar(live.limit(1)) is not None

    def _intent(self, offer: BuyableOffer, failover_step: int, reference: str, now: datetime) -> Intent:
        claim = self.claim
        return Intent(
            esim_id=claim.esim_id,
            order_id=claim.order_id,
            fence=claim.fence,
            owner=claim.owner,
            failover_step=failover_step,
            provider=offer.provider,
            offer_id=offer.offer_id,
            provider_package_id=offer.provider_package_id,
            package_name=offer.name,
            order_hints=dict(offer.hints),
            reference=reference,
            expected_cost=offer.expected_cost.amount,
            ceiling_cost=offer.cost_ceiling.amount,
            currency=offer.expected_cost.currency,
            slot=slot_of(self.desk.providers[offer.provider], offer),
            run_id=self.run_id,
            started_at=now,
        )


class OpenAttemptFound(LeaseLost):
    """This unit has a purchase that is open or succeeded: nothing more may be bought for it."""


def new_reference() -> str:
    """Return our name for one purchase: 26 letters and digits from 134 random bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(26))


def slot_of(provider: Provider, offer: BuyableOffer) -> str | None:
    """Return what an open purchase of this offer keeps busy; None where purchases do not disturb each other."""
    rule = provider.capabilities.serialise
    if rule is Serialise.NONE:
        return None
    return provider.slug if rule is Serialise.ACCOUNT else f"{provider.slug}:{offer.provider_package_id}"


def stored_request(attempt: Row[Any]) -> PurchaseRequest:
    """Return the request an attempt was made with, for looking it up: the same reference, the same window."""
    currency = str(attempt.currency)
    return PurchaseRequest(
        reference=attempt.reference,
        provider_package_id=attempt.provider_package_id,
        expected_cost=Cost(attempt.expected_cost, currency),
        cost_ceiling=Cost(attempt.ceiling_cost, currency),
        started_at=attempt.started_at,
        hints={str(name): str(value) for name, value in attempt.order_hints.items()},
        package_name=attempt.package_name,
        sent_at=attempt.sent_at,
    )
