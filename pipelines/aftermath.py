"""What follows a committed change: notices are handed over, refunds are paid, each once; failures are tried again."""

import logging
from threading import Thread
from time import monotonic

from esim.errors import NoticeError, PaymentError, PaymentRejected
from esim.money import Money
from esim.ports import Mail
from pipelines.wakeups import Wakeups
from resources.db.fees import book_fee, claim_fees
from resources.db.notice_facts import OrderFacts, order_facts
from resources.db.notices import CONFIRMATION, REFUNDED
from resources.db.outbox import Channel, DueNotice, claim_notices, note_not_sent, note_sent
from resources.db.refunds import DueRefund, claim_refunds, paid_back, record_refund, record_refusal, still_due
from resources.order_operations import OrderTools

PASS_SECONDS = 1.0
FEE_SECONDS = 5.0
FEES_AT_ONCE = 20
PAYMENT_FAILED = "payment_failed"
_log = logging.getLogger("numnaroad.aftermath")


def send_notices(tools: OrderTools) -> tuple[int, int]:
    """Hand over every notice that is due; return how many were sent and how many failed.

    One is claimed at a time: a slow carrier must not keep claims waiting until they look abandoned.
    """
    sent = failed = 0
    while due := claim_notices(tools.engine, 1):
        for notice in due:
            ok = _hand_over(tools, notice)
            sent, failed = sent + ok, failed + (not ok)
    return sent, failed


def pay_refunds(tools: OrderTools, actor: str) -> tuple[int, int]:
    """Pay every refund that is due; return how many were paid and how many were not."""
    paid = failed = 0
    while due := claim_refunds(tools.engine, 1):
        for refund in due:
            ok = _pay(tools, refund, actor)
            paid, failed = paid + ok, failed + (not ok)
    return paid, failed


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


def _hand_over(tools: OrderTools, notice: DueNotice) -> bool:
    try:
        carrier_id = _send(tools, notice)
    except Exception as error:  # noqa: BLE001 - one notice that cannot be rendered or sent must not stop the others
        with tools.engine.begin() as conn:
            note_not_sent(conn, notice, f"{type(error).__name__}: {error}")
        return False
    with tools.engine.begin() as conn:
        note_sent(conn, notice.outbox_id, carrier_id)
    return True


def _send(tools: OrderTools, notice: DueNotice) -> str:
    if notice.channel is Channel.SLACK:
        tools.notifier.post(str(notice.payload.get("text", notice.kind)), key=notice.key)
        return ""
    return tools.mailer.send(render(tools, notice), key=notice.key)


def render(tools: OrderTools, notice: DueNotice) -> Mail:
    """Return the mail a notice asks for.

    Raises:
        NoticeError: there is no such kind of mail, or nothing to say in it.
        NotFound: its order is gone.
    """
    from resources.mail.messages import payment_failed  # templates are read when a mail is due, not at every import

    if notice.order_id is None:
        raise NoticeError(f"notice {notice.key} names no order")
    units = [int(n) for n in notice.payload.get("esims", ())]
    with tools.engine.connect() as conn:
        facts = order_facts(conn, notice.order_id, units, tools.vault)
    if notice.kind == CONFIRMATION:
        return _confirmation(facts)
    if notice.kind == REFUNDED:
        return _refunded(facts)
    if notice.kind == PAYMENT_FAILED:
        return payment_failed(to=facts.email, display_id=facts.display_id, shop_url=tools.settings.api_url)
    raise NoticeError(f"there is no mail of kind {notice.kind!r}")


def _confirmation(facts: OrderFacts) -> Mail:
    from resources.mail.messages import DeliveredEsim, order_confirmation

    esims = [DeliveredEsim(unit.n, unit.package_name, unit.profile) for unit in facts.units if unit.profile]
    if not esims:
        raise NoticeError(f"order {facts.display_id} has no delivered eSIM to confirm")
    return order_confirmation(to=facts.email, display_id=facts.display_id, order_url=facts.order_url, esims=esims)


def _refunded(facts: OrderFacts) -> Mail:
    from resources.mail.messages import order_failed_refunded

    if not facts.units:
        raise NoticeError(f"order {facts.display_id} has no refunded eSIM to tell of")
    total = sum((unit.price for unit in facts.units), Money(0, facts.units[0].price.currency))
    return order_failed_refunded(
        to=facts.email,
        display_id=facts.display_id,
        order_url=facts.order_url,
        refunded=total,
        packages=[unit.package_name for unit in facts.units if unit.profile is None],
        returned=[unit.package_name for unit in facts.units if unit.profile is not None],
        delivered=facts.delivered,
    )


def _pay(tools: OrderTools, due: DueRefund, actor: str) -> bool:
    with tools.engine.begin() as conn:
        if not still_due(conn, due, tools.clock()):
            return False
    try:
        made = tools.gateway.refund_made(due.payment_intent, due.refund_key) if due.attempts > 1 else None
        refund = made or tools.gateway.refund(due.payment_intent, due.amount, key=due.refund_key, reason=due.reason)
    except PaymentError as error:
        final = isinstance(error, PaymentRejected)
        with tools.engine.begin() as conn:
            record_refusal(conn, due, str(error), final=final, actor=actor, now=tools.clock())
        return False
    with tools.engine.begin() as conn:
        if not paid_back(refund):
            reason = f"the payment service says {refund.status}"
            record_refusal(conn, due, reason, final=True, actor=actor, now=tools.clock())
            return False
        record_refund(conn, due, refund, actor=actor, now=tools.clock())
    return True


class Aftermath:
    """Sends notices, pays refunds and books payment fees on a thread of its own, as soon as they are due."""

    def __init__(self, tools: OrderTools, actor: str) -> None:
        self._tools, self._actor = tools, actor
        self._flag = Wakeups()
        self._ending = False

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
        self._ending = True
        self._flag.stop()
        self._worker.join(timeout=60)
        self._listener.join(timeout=5)

    def _work(self) -> None:
        fees_at = monotonic()
        while True:
            ending = self._ending  # read before the pass: what was committed before the end is still sent
            try:
                pay_refunds(self._tools, self._actor)
                send_notices(self._tools)
                if ending or monotonic() - fees_at >= FEE_SECONDS:
                    fees_at = monotonic()
                    book_fees(self._tools)
            except Exception as error:  # noqa: BLE001 - the store is away: what is due stays due
                _log.warning("notices and refunds wait: %s", type(error).__name__)
            if ending:
                return
            self._flag.wait(PASS_SECONDS)
