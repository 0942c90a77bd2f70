"""What an operator can do, for whoever offers it: the command line, Dagster, an API.

The store's functions, with the providers and the payment service asked in between, never inside a transaction. Every
action can be previewed: its transaction is rolled back, and nobody outside is asked to change anything.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine

from esim.errors import PaymentError, PaymentRejected, Refused
from esim.ports import Clock, PaymentGateway, Provider, Refund
from esim.purchase import CancelOutcome, CancelUnknown, ErrorType, Outcome, Pending, Provisioned, Rejected, Unknown
from resources.db import operator_cancel, operator_providers, operator_refunds, operator_resolve, operator_returns
from resources.db.attempts import stored_request
from resources.db.audit import Operator
from resources.db.findings import accept_finding
from resources.db.operator_actions import Done, chosen, open_case
from resources.db.operator_notices import resend_notices
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_resolve import Doubt
from resources.db.operator_retry import RetryOptions, retry_order
from resources.db.operator_settled import note_paid_elsewhere
from resources.db.operator_waiting_refunds import retry_refunds
from resources.db.order_report import find_order_id
from resources.db.payments import Booking, Payment, record_payment
from resources.db.refunds import paid_back
from resources.db.transitions import OrderRow
from resources.db.vault import Vault
from resources.look_ups import look_up
from resources.settings import Settings


class DeskTools(Protocol):
    """What actions are done with."""

    @property
    def settings(self) -> Settings:
        """The settings."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def engine(self) -> Engine:
        """The operational store."""
        ...

    @property
    def vault(self) -> Vault:
        """The keys of what is encrypted at rest."""
        ...

    @property
    def providers(self) -> Mapping[str, Provider]:
        """The providers by slug."""
        ...

    @property
    def gateway(self) -> PaymentGateway:
        """The payment service."""
        ...


class OperatorDesk:
    """Everything an operator can do; with `preview` only what would be done is returned.

    `agreed` is what a person agreed to when it was previewed: anything else is refused.
    """

    def __init__(self, tools: DeskTools, *, preview: bool = False, agreed: Sequence[str] | None = None) -> None:
        self._tools = tools
        self._preview = preview
        self._agreed = agreed

    def order_id(self, reference: str) -> UUID:
        """Return the order a person means, by id or display id.

        Raises:
            NotFound: there is none.
        """
        with self._tools.engine.connect() as conn:
            return find_order_id(conn, reference)

    def retry(self, order_id: UUID, who: Operator, options: RetryOptions) -> Done:
        """See `resources.db.operator_retry.retry_order`."""
        return self._do(lambda conn: retry_order(conn, order_id, who, options))

    def refund(self, order_id: UUID, who: Operator, options: RefundOptions, *, cancel_esim: bool = False) -> Done:
        """Ask for refunds, and then the providers to take delivered eSIMs back where that is wanted.

        Raises:
            Refused: nothing was changed.
            PaymentUnavailable: a refund that failed could not be looked up; nothing was changed.
        """
        if options.again:
            self._check_not_paid(order_id, who, options)
        done = self._do(lambda conn: operator_refunds.refund_units(conn, order_id, who, options))
        return self._take_back(order_id, who, options, done) if cancel_esim else done

    def paid_elsewhere(self, order_id: UUID, who: Operator, options: RefundOptions) -> Done:
        """Ask the payment service what it paid back, then see `resources.db.operator_settled.note_paid_elsewhere`.

        Raises:
            Refused: nothing was changed.
            PaymentError: the payment service could not say what it paid back; nothing was changed.
        """
        with self._tools.engine.begin() as conn:
            intent = open_case(conn, order_id, who).order.payment_intent
        listed = [] if intent is None else self._refunds_of(intent)
        return self._do(lambda conn: note_paid_elsewhere(conn, order_id, who, options, listed))

    def not_bought(self, order_id: UUID, who: Operator, doubt: Doubt) -> Done:
        """Close an open purchase that was not made, once its provider's settle time is over and it does not show it.

        Where the provider cannot tell, the operator's word decides, and the change says so.

        Raises:
            Refused: too early, the provider has it, or no purchase is open; nothing was changed.
        """
        unsure = self._deny_what_was_bought(order_id, who, doubt)

        def close(conn: Connection) -> Done:
            provider = self._provider_of_doubt(conn, order_id, who, doubt)
            settle_seconds = 0.0 if provider is None else provider.capabilities.settle_seconds
            return operator_resolve.resolve_not_bought(
                conn, order_id, who, doubt, settle_seconds=settle_seconds, vault=self._tools.vault, unsure=unsure
            )

        return self._do(close)

    def bought(
        self, order_id: UUID, who: Operator, doubt: Doubt, provider_order_id: str, *, although_unproven: bool = False
    ) -> Done:
        """Read an order at the provider and deliver it where the provider's answer is clear.

        Raises:
            Refused: the provider does not say that it delivered, or it is another's, or (unless `although_unproven`)
                may be; nothing was changed.
        """
        engine = self._tools.engine
        with engine.begin() as conn:
            if operator_resolve.is_delivered_as(conn, order_id, doubt.n, provider_order_id):
                return Done(open_case(conn, order_id, who).subject)
            attempt = operator_resolve.open_attempt(conn, order_id, who, doubt)
        provider = self._provider(attempt.provider)
        try:
            outcome = provider.order_status(provider_order_id, stored_request(attempt))
        except Exception as error:  # noqa: BLE001 - whatever an adapter raises, nothing is known by it
            outcome = Unknown(ErrorType.UNKNOWN, type(error).__name__)
        if not isinstance(outcome, Provisioned):
            raise Refused(_not_delivered(provider.slug, provider_order_id, outcome))
        meant, vault = Doubt(doubt.n, attempt.number), self._tools.vault

        def deliver(conn: Connection) -> Done:
            return operator_resolve.resolve_bought(
                conn, order_id, who, meant, found=outcome, vault=vault, although_unproven=although_unproven
            )

        return self._do(deliver)

    def abandon(self, order_id: UUID, who: Operator, doubt: Doubt, *, release_hold: bool = False) -> Done:
        """See `resources.db.operator_resolve.resolve_abandoned`."""
        return self._do(
            lambda conn: operator_resolve.resolve_abandoned(conn, order_id, who, doubt, release_hold=release_hold)
        )

    def cancel(self, order_id: UUID, who: Operator, *, release_hold: bool = False) -> Done:
        """Cancel an order; an unpaid one's payment page is closed first, and what was paid meanwhile is kept.

        Raises:
            Refused: nothing was changed, except that a payment nobody knew of may have been recorded.
            PaymentUnavailable: the payment page could not be closed; nothing was changed.
        """
        with self._tools.engine.begin() as conn:
            order = operator_cancel.unpaid_order(conn, order_id)
        closed = False
        if order is not None and order.session_id is not None and not self._preview:
            self._close_page(order, order.session_id, who)
            closed = True
        return self._do(
            lambda conn: operator_cancel.cancel_order(
                conn, order_id, who, release_hold=release_hold, page_closed=closed
            )
        )

    def resend(self, who: Operator, order_id: UUID | None) -> Done:
        """See `resources.db.operator_notices.resend_notices`."""
        return self._do(lambda conn: resend_notices(conn, who, order_id))

    def retry_refunds(self, who: Operator, order_id: UUID | None) -> Done:
        """See `resources.db.operator_waiting_refunds.retry_refunds`."""
        return self._do(lambda conn: retry_refunds(conn, who, order_id))

    def enable_provider(self, slug: str, who: Operator, *, enabled: bool) -> Done:
        """See `resources.db.operator_providers.set_enabled`."""
        return self._do(lambda conn: operator_providers.set_enabled(conn, slug, who, enabled=enabled))

    def reset_provider(self, slug: str, who: Operator) -> Done:
        """See `resources.db.operator_providers.reset_provider`."""
        return self._do(lambda conn: operator_providers.reset_provider(conn, slug, who))

    def accept_catalogues(self, slugs: Sequence[str], who: Operator) -> Done:
        """See `resources.db.operator_providers.accept_catalogues`."""
        return self._do(lambda conn: operator_providers.accept_catalogues(conn, slugs, who))

    def accept_finding(self, finding_id: int, who: Operator) -> Done:
        """See `resources.db.findings.accept_finding`."""
        return self._do(lambda conn: accept_finding(conn, finding_id, who))

    def return_stock(self, stock_id: int, who: Operator) -> Done:
        """Ask a provider to take an eSIM in stock back.

        Raises:
            Refused: it does not; the eSIM stays in stock.
        """
        with self._tools.engine.begin() as conn:
            item = operator_returns.returnable_stock(conn, stock_id, self._tools.vault)
        if item is None:
            return Done(f"stock {stock_id}")
        if self._preview:
            return Done(f"stock {stock_id}", (f"{item.provider} is asked to take eSIM {stock_id} in stock back",))
        answer = self._ask_to_take_back(item)
        with self._tools.engine.begin() as conn:
            return operator_returns.end_stock(conn, stock_id, who, answer)

    def write_off_stock(self, stock_id: int, who: Operator) -> Done:
        """Book an eSIM in stock as a loss."""
        return self._do(lambda conn: operator_returns.end_stock(conn, stock_id, who, None))

    def _do(self, action: Callable[[Connection], Done]) -> Done:
        with self._tools.engine.connect() as conn, conn.begin() as transaction:
            done = action(conn)
            if self._preview:
                transaction.rollback()
            elif self._agreed is not None and list(done.changes) != list(self._agreed[: len(done.changes)]):
                raise Refused(f"{done.subject} changed since you were shown what would be done; look again")
            return done

    def _provider(self, slug: str) -> Provider:
        provider = self._tools.providers.get(slug)
        if provider is None:
            raise Refused(f"{slug} is not connected here; nobody can ask it")
        return provider

    def _deny_what_was_bought(self, order_id: UUID, who: Operator, doubt: Doubt) -> str:
        """Refuse where the provider has an order of the open purchase that is meant; return why it cannot tell."""
        with self._tools.engine.begin() as conn:
            case = open_case(conn, order_id, who)
            [unit] = chosen(case, (doubt.n,))
            attempt = case.open_purchase(unit)
        if attempt is None or doubt.attempt not in {None, attempt.number}:
            return ""
        told = look_up(self._tools.engine, self._provider(attempt.provider), attempt, self._tools.clock())
        if isinstance(told, Provisioned | Pending):
            number = told.provider_order_id
            raise Refused(
                f"{attempt.provider} has it, as order {number}: wait for the next look-up, or say --bought {number}"
            )
        return told.message if isinstance(told, Unknown) else ""

    def _provider_of_doubt(self, conn: Connection, order_id: UUID, who: Operator, doubt: Doubt) -> Provider | None:
        case = open_case(conn, order_id, who)
        [unit] = chosen(case, (doubt.n,))
        attempt = case.open_purchase(unit)
        return None if attempt is None else self._provider(attempt.provider)

    def _check_not_paid(self, order_id: UUID, who: Operator, options: RefundOptions) -> None:
        """Refuse to ask again for a refund that the payment service made after all."""
        with self._tools.engine.begin() as conn:
            failed = [row for row in open_case(conn, order_id, who).refunds.values() if row.state == "failed"]
        for row in failed:
            made = self._tools.gateway.refund_made(row.payment_intent, row.refund_key)
            if made is not None and paid_back(made) and (not options.units or row.esim_n in options.units):
                raise Refused(
                    f"Stripe made this refund after all ({made.refund_id}): write eSIM {row.esim_n} down with "
                    "--paid-elsewhere"
                )

    def _refunds_of(self, intent: str) -> Sequence[Refund]:
        try:
            return self._tools.gateway.refunds_of(intent)
        except PaymentError as error:
            told = f"what was paid back of {intent} must be known first, and nothing was changed: {error}"
            raise type(error)(told) from error

    def _take_back(self, order_id: UUID, who: Operator, options: RefundOptions, done: Done) -> Done:
        tools, changes = self._tools, list(done.changes)
        with tools.engine.begin() as conn:
            units = options.units or [unit.n for unit in open_case(conn, order_id, who).units]
            asked = not self._preview
            items = operator_returns.returnable_units(conn, order_id, units, tools.vault, asked_only=asked)
        if self._preview:
            changes += [f"{item.provider} is asked to take eSIM {item.n} back" for item in items]
            return Done(done.subject, tuple(changes), done.left_alone, order_id)
        for item in items:
            answer = self._ask_to_take_back(item)
            with tools.engine.begin() as conn:
                changes += operator_returns.note_returned(conn, order_id, who, item, answer).changes
        return Done(done.subject, tuple(changes), done.left_alone, order_id)

    def _ask_to_take_back(self, item: operator_returns.Returnable) -> CancelOutcome:
        provider = self._provider(item.provider)
        if not provider.capabilities.cancel:
            return operator_returns.cannot_return(item.provider)
        try:
            return provider.cancel(item.esim)
        except Exception as error:  # noqa: BLE001 - whatever an adapter raises here, it may have been taken back
            return CancelUnknown(f"{type(error).__name__} while asking")

    def _close_page(self, order: OrderRow, session_id: str, who: Operator) -> None:
        """Close an order's payment page; record the payment instead where it was paid meanwhile."""
        gateway, tools = self._tools.gateway, self._tools
        try:
            gateway.expire(session_id)
        except PaymentRejected:
            session = gateway.session(session_id)
            if session.payment_status != "paid" or session.payment_intent is None:
                raise
        else:
            return
        payment = Payment(order.order_id, session.payment_intent, session_id, session.amount, who.actor)
        booking = Booking(who.actor, who.now, tools.settings.customer_deadline_minutes)
        with tools.engine.begin() as conn:
            result = record_payment(conn, payment, booking)
        raise Refused(
            f"order {order.display_id} was paid meanwhile: its payment is recorded ({result}) and nothing is "
            "cancelled. Cancel it again to pay it back"
        )


def _not_delivered(slug: str, provider_order_id: str, outcome: Outcome) -> str:
    if isinstance(outcome, Rejected):
        return f"{slug} says that order {provider_order_id} failed ({outcome.message}); if so, say --not-bought"
    word = f"unknown: {outcome.message[:200]}" if isinstance(outcome, Unknown) else "pending"
    again = f"try again later, or check the number: {slug} may not know it"
    return f"{slug} does not say that it delivered order {provider_order_id} ({word}); {again}"
