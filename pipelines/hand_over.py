"""Notices on their way out: mails to customers and notes for operations, claimed together, handed over side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

from esim.errors import NoticeError
from esim.money import Money
from esim.ports import Mail
from resources.db.databases import at_once
from resources.db.notice_facts import OrderFacts, order_facts
from resources.db.notices import COMPLETED, CONFIRMATION, REFUNDED
from resources.db.outbox import (
    FRESH_SECONDS,
    Channel,
    DueNotice,
    Handed,
    claim_notices,
    note_needless,
    note_not_sent,
    note_sent,
    renew_claims,
)
from resources.db.together import Together
from resources.order_operations import OrderTools

PAYMENT_FAILED = "payment_failed"
AT_ONCE = 24  # in three turns of eight
SENDERS = 8
NOTE_CHARACTERS = 2_500  # of orders that went well, in one note
NEEDLESS = "not sent: every eSIM it would confirm was paid back since"


def send_notices(
    tools: OrderTools, most: int | None = None, *, timer: Callable[[], float] = monotonic
) -> tuple[int, int]:
    """Hand over every notice that is due, or about `most`; return how many were sent and how many failed.

    `timer` tells seconds since whenever, for those who test what slow carriers do.
    """
    sent = failed = 0
    told = Together[Handed, None](partial(_note_sent, tools))
    with ThreadPoolExecutor(SENDERS, thread_name_prefix="notice") as senders:
        while most is None or sent + failed < most:
            age = partial(_since, timer, timer())
            if not (due := claim_notices(tools.engine, AT_ONCE)):
                break
            for count, ok in senders.map(partial(_hand_over, tools, told, age), _bundles(due)):
                sent, failed = sent + count * ok, failed + count * (not ok)
    return sent, failed


def _bundles(due: Sequence[DueNotice]) -> list[list[DueNotice]]:
    """Put notes of orders that went well together, so that a busy hour is readable; everything else goes alone."""
    bundles: list[list[DueNotice]] = []
    routine: list[DueNotice] = []
    for notice in due:
        if notice.kind != COMPLETED:
            bundles.append([notice])
        elif routine and sum(len(_text(one)) for one in [*routine, notice]) <= NOTE_CHARACTERS:
            routine.append(notice)
        else:
            routine = [notice]
            bundles.append(routine)
    return bundles


def _since(timer: Callable[[], float], start: float) -> float:
    return timer() - start


def _hand_over(
    tools: OrderTools, told: Together[Handed, None], age: Callable[[], float], bundle: Sequence[DueNotice]
) -> tuple[int, bool]:
    if age() > FRESH_SECONDS:
        bundle = renew_claims(tools.engine, bundle)  # behind slow carriers, another sender may have taken them
    if not bundle:
        return 0, True
    try:
        carrier_id = _send(tools, bundle)
    except Exception as error:  # noqa: BLE001 - one notice that cannot be rendered or sent must not stop the others
        with tools.engine.begin() as conn:
            for notice in bundle:
                note_not_sent(conn, notice, f"{type(error).__name__}: {error}")
        return len(bundle), False
    if carrier_id is None:
        with tools.engine.begin() as conn:
            note_needless(conn, bundle[0], NEEDLESS)
        return len(bundle), True
    told.submit(Handed(tuple(notice.outbox_id for notice in bundle), carrier_id))
    return len(bundle), True


def _note_sent(tools: OrderTools, handed: Sequence[Handed]) -> list[None]:
    with at_once(tools.engine).connect() as conn:
        note_sent(conn, handed)
    return [None] * len(handed)


def _send(tools: OrderTools, bundle: Sequence[DueNotice]) -> str | None:
    """Hand a bundle to its carrier and return the id it gave; None where there is nothing left to say."""
    notice = bundle[0]
    if notice.channel is Channel.SLACK:
        tools.notifier.post("\n".join(map(_text, bundle)), key=notice.key)
        return ""
    mail = render(tools, notice)
    return None if mail is None else tools.mailer.send(mail, key=notice.key)


def _text(notice: DueNotice) -> str:
    return str(notice.payload.get("text", notice.kind))


def render(tools: OrderTools, notice: DueNotice) -> Mail | None:
    """Return the mail a notice asks for; None for a confirmation of eSIMs that were paid back since.

    Raises:
        NoticeError: there is no such kind of mail, or nothing to say in it.
        NotFound: its order is gone.
    """
    from resources.mail.messages import payment_failed  # templates are read when a mail is due, not at every import

    if notice.order_id is None:
        raise NoticeError(f"notice {notice.key} names no order")
    units = [int(n) for n in notice.payload.get("esims", ())]
    with at_once(tools.engine).connect() as conn:
        facts = order_facts(conn, notice.order_id, units, tools.vault)
    if notice.kind == CONFIRMATION:
        return _confirmation(facts)
    if notice.kind == REFUNDED:
        return _refunded(facts)
    if notice.kind == PAYMENT_FAILED:
        return payment_failed(to=facts.email, display_id=facts.display_id, shop_url=tools.settings.api_url)
    raise NoticeError(f"there is no mail of kind {notice.kind!r}")


def _confirmation(facts: OrderFacts) -> Mail | None:
    from resources.mail.messages import DeliveredEsim, order_confirmation

    had = [unit for unit in facts.units if unit.profile]
    if not had:
        raise NoticeError(f"order {facts.display_id} has no delivered eSIM to confirm")
    esims = [DeliveredEsim(unit.n, unit.package_name, unit.profile) for unit in had if unit.delivered and unit.profile]
    if not esims:
        return None
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
