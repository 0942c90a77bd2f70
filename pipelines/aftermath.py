"""What follows a committed change: notices are handed over, refunds are paid, each once; failures are tried again."""

import logging
from collections.abc import Callable
from datetime import timedelta
from threading import Event, Thread
from time import monotonic

from esim.errors import PaymentError, PaymentRejected, PaymentServiceFault
from esim.ports import Refund
from pipelines.hand_over import AT_ONCE, send_notices
from pipelines.wakeups import Wakeups
from resources.db.fees import book_fee, claim_fees
from resources.db.outbox import late_notices
from resources.db.refund_events import hear_listed
from resources.db.refunds import (
    DueRefund,
    claim_refunds,
    count_fault,
    hasten_refunds,
    paid_back,
    record_refund,
    record_refusal,
    still_due,
)
from resources.db.tellers import Teller
from resources.db.transitions import lock_order
from resources.order_operations import OrderTools

PASS_SECONDS = 1.0
FEE_SECONDS = 5.0
NOTICES_WAIT = timedelta(seconds=20)  # at most, for paid units that nobody could work yet
FEES_AT_ONCE = 20
_log = logging.getLogger("numnaroad.aftermath")


def pay_refunds(tools: OrderTools, actor: str) -> tuple[int, int]:
    """Pay every refund that is due; return how many were paid and how many were not."""
    paid = failed = 0
    while due := claim_refunds(tools.engine, 1):
        for refund in due:
            ok = _pay(tools, refund, actor)
            paid, failed = paid + ok, failed + (not ok)
    return paid, failed


def pay_waiting_refunds(tools: OrderTools, actor: str) -> tuple[int, int]:
    """Pay what is due and, each once, what backs off after a fault; return as `pay_refunds` does."""
    with tools.engine.begin() as conn:
        hasten_refunds(conn)
    return pay_refunds(tools, actor)


def book_fees(tools: OrderTools) -> int:
    """Ask what the payment service kept of payments that are due, and book it; return how many were booked."""
    booked = 0
    for due in claim_fees(tools.engine, FEES_AT_ONCE):
        try:
            fee = tools.gateway.fee(due.payment_intent)
        except PaymentError as error:
            _log.warning("the fee of order %s is asked for again later: %s", due.order_id, type(error).__name__)
            continue
        if fee is not None:
            with tools.engine.begin() as conn:
                booked += book_fee(conn, due, fee)
    return booked


def _pay(tools: OrderTools, due: DueRefund, actor: str) -> bool:
    with tools.engine.begin() as conn:
        if not still_due(conn, due, tools.clock(), actor):
            return False
    try:
        refund = _ask(tools, due)
    except PaymentError as error:
        final = isinstance(error, PaymentRejected)
        with tools.engine.begin() as conn:
            if isinstance(error, PaymentServiceFault):
                count_fault(conn, due)
            record_refusal(conn, due, str(error), final=final, actor=actor, now=tools.clock())
        if final:
            _hear_what_went_back(tools, due, actor)
        return False
    with tools.engine.begin() as conn:
        if not paid_back(refund):
            reason = f"the payment service says {refund.status}"
            made = refund.refund_id
            record_refusal(conn, due, reason, final=True, actor=actor, now=tools.clock(), refund_id=made)
            return False
        record_refund(conn, due, refund, actor=actor, now=tools.clock())
    return True


def _hear_what_went_back(tools: OrderTools, due: DueRefund, actor: str) -> None:
    """Book what somebody paid back by hand while our refund was due: until now it was taken for ours."""
    try:
        listed = tools.gateway.refunds_of(due.payment_intent)
    except PaymentError as error:
        _log.warning("refunds of %s are compared later: %s", due.payment_intent, type(error).__name__)
        return
    with tools.engine.begin() as conn:
        hear_listed(conn, lock_order(conn, due.order_id), listed, Teller(actor, tools.clock()))


def _ask(tools: OrderTools, due: DueRefund) -> Refund:
    """Look for the refund before it is asked for again, and after a refusal that may be for the very same refund."""
    gateway, key = tools.gateway, due.refund_key
    if due.attempts > 1 and (made := gateway.refund_made(due.payment_intent, key)) is not None:
        return made
    try:
        return gateway.refund(due.payment_intent, due.amount, key=key, reason=due.reason, faults=due.faults)
    except PaymentRejected:
        made = gateway.refund_made(due.payment_intent, key) if due.faults else None
        if made is None:
            raise
        return made


class Aftermath:
    """Sends notices, pays refunds and books payment fees on a thread of its own, as soon as they are due.

    While `busy` says that more paid units wait than can be worked, deliveries come first: a customer sees the eSIM on
    the order's page before the mail. Notices wait for twenty seconds then and go on at a modest pace; fees wait.
    """

    def __init__(self, tools: OrderTools, actor: str, busy: Callable[[], bool]) -> None:
        self._tools, self._actor, self._busy = tools, actor, busy
        self._flag = Wakeups()
        self._ending = Event()

    def __enter__(self) -> "Aftermath":
        flag, url = self._flag, self._tools.url
        self._listener = Thread(
            target=flag.listen, args=(url, ("outbox", "refunds")), name="listen-outbox", daemon=True
        )
        self._worker = Thread(target=self._work, name="aftermath", daemon=True)
        self._listener.start()
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._flag.stop()
        self._worker.join(timeout=60)
        self._listener.join(timeout=5)

    def _work(self) -> None:
        self._fees_at = monotonic()
        while True:
            ending = self._ending.is_set()  # read before the pass: what was committed before the end is still sent
            try:
                more = self._pass(ending)
            except Exception as error:  # noqa: BLE001 - the store is away: what is due stays due
                _log.warning("notices and refunds wait: %s", type(error).__name__)
                more = False
            if ending:
                return
            if self._busy():
                self._ending.wait(PASS_SECONDS)
            elif not more:
                self._flag.wait(PASS_SECONDS)

    def _pass(self, ending: bool) -> bool:
        """Do what is due, or a handful of it; return whether more may be due."""
        pay_refunds(self._tools, self._actor)
        handled = 0 if self._notices_can_wait(ending) else sum(send_notices(self._tools, None if ending else AT_ONCE))
        if ending or (monotonic() - self._fees_at >= FEE_SECONDS and not self._busy()):
            self._fees_at = monotonic()
            book_fees(self._tools)
        return handled >= AT_ONCE

    def _notices_can_wait(self, ending: bool) -> bool:
        if ending or not self._busy():
            return False
        with self._tools.engine.connect() as conn:
            return late_notices(conn, NOTICES_WAIT) == 0
