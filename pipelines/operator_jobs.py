"""What operators do, as jobs to fill in and launch from the Launchpad; the command line calls the same functions.

A run shows what changed with ids only. What may not be done fails the run with the sentence that says why and what to
do instead. The reason is kept with the run, so nothing personal belongs in it.
"""

from collections.abc import Callable
from enum import Enum

import dagster as dg
from pydantic import Field

from assets.reconciliation import report_agreement
from esim.errors import InvalidInput, NumnaRoadError
from pipelines.provisioning import MAX_RUNTIME
from resources.by_hand import decides
from resources.db.audit import Operator
from resources.db.operator_actions import Done
from resources.db.operator_refunds import RefundOptions
from resources.db.operator_resolve import Doubt
from resources.db.operator_retry import RetryOptions
from resources.operator_desk import OperatorDesk
from resources.order_operations import OrderTools, ToolSource


class OrderAction(Enum):
    """What to do with an order."""

    RETRY = "retry"
    REFUND = "refund"
    PAID_ELSEWHERE = "paid_elsewhere"
    NOT_BOUGHT = "not_bought"
    BOUGHT = "bought"
    ABANDON = "abandon"
    CANCEL = "cancel"
    RESEND_NOTICES = "resend_notices"


class ProviderAction(Enum):
    """What to do with a provider."""

    ENABLE = "enable"
    DISABLE = "disable"
    RESET = "reset"


class StockAction(Enum):
    """What to do with an eSIM in stock."""

    RETURN = "return"
    WRITE_OFF = "write_off"


class OperateOrder(dg.Config):
    """One action on one order; see docs/operations.md."""

    action: OrderAction = Field(
        description="RETRY, REFUND, PAID_ELSEWHERE, NOT_BOUGHT, BOUGHT, ABANDON, CANCEL or RESEND_NOTICES."
    )
    order: str = Field(description="Order id, or display id such as OID001.")
    operator: str = Field(description="Who acts: your name, kept with the action.")
    reason: str = Field(description="Why; kept with the action and the run, so no address and nothing personal.")
    units: list[int] = Field(default=[], description="Only these eSIMs, by number; retry: empty means all that can be.")
    all_units: bool = Field(default=False, description="refund, paid_elsewhere: every eSIM, delivered ones too.")
    preview: bool = Field(default=False, description="Only show what would be done; nothing is changed.")
    release_hold: bool = Field(default=False, description="What the order is held for (a dispute, say) is settled.")
    extend_deadline_minutes: int | None = Field(default=None, description="retry: the new deadline, from now.")
    goodwill: bool = Field(default=False, description="retry: a gift, although the bank or the customer has the money.")
    cancel_esim: bool = Field(default=False, description="refund: ask the provider to take delivered eSIMs back.")
    even_if_open: bool = Field(
        default=False, description="refund, paid_elsewhere: although a purchase is open; its eSIM goes to stock."
    )
    again: bool = Field(default=False, description="refund: ask again where Stripe refused for good.")
    attempt: int | None = Field(default=None, description="not_bought, bought, abandon: the attempt you looked into.")
    provider_order_id: str = Field(default="", description="bought: the provider's order that bought it.")
    although_unproven: bool = Field(
        default=False,
        description="bought: although the order looks older, or another purchase of the same plan is open.",
    )


class ByOperator(dg.Config):
    """Who acts, and why."""

    operator: str = Field(description="Who acts: your name, kept with the action.")
    reason: str = Field(description="Why; kept with the action and the run.")
    preview: bool = Field(default=False, description="Only show what would be done; nothing is changed.")


class OperateProvider(ByOperator):
    """One action on one provider; see docs/operations.md."""

    action: ProviderAction = Field(description="ENABLE, DISABLE or RESET (close its circuit).")
    provider: str = Field(description="airalo, esim_access, esim_go, mobimatter or esim_card.")


class OperateStock(ByOperator):
    """One action on one eSIM that no order got; see docs/operations.md."""

    action: StockAction = Field(description="RETURN (ask the provider to take it back) or WRITE_OFF (book a loss).")
    stock: int = Field(description="Its number in the asset ops/attention.")


class AcceptFinding(ByOperator):
    """One disagreement that is right as it is; see docs/operations.md."""

    finding: int = Field(description="Its number in the asset ops/reconciliation.")


@dg.op(description="Retry, refund, resolve or cancel an order in an operator's name.")
def act_on_order(
    context: dg.OpExecutionContext, config: OperateOrder, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Do one thing to one order."""
    tools = operations.tools()
    desk = OperatorDesk(tools, preview=config.preview)

    def action(who: Operator) -> Done:
        return _on_order(desk, who, config)

    _act(context, tools, config.operator, config.reason, action)


@dg.op(description="Enable, disable or reset a provider in an operator's name.")
def act_on_provider(
    context: dg.OpExecutionContext, config: OperateProvider, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Do one thing to one provider."""
    tools = operations.tools()
    desk = OperatorDesk(tools, preview=config.preview)

    def action(who: Operator) -> Done:
        if config.action is ProviderAction.RESET:
            return desk.reset_provider(config.provider, who)
        return desk.enable_provider(config.provider, who, enabled=config.action is ProviderAction.ENABLE)

    _act(context, tools, config.operator, config.reason, action)


@dg.op(description="Give an eSIM in stock back, or write it off, in an operator's name.")
def act_on_stock(
    context: dg.OpExecutionContext, config: OperateStock, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Do one thing to one eSIM in stock."""
    tools = operations.tools()
    desk = OperatorDesk(tools, preview=config.preview)
    end = desk.return_stock if config.action is StockAction.RETURN else desk.write_off_stock
    _act(context, tools, config.operator, config.reason, lambda who: end(config.stock, who))


@dg.op(description="Accept a disagreement in an operator's name.")
def act_on_finding(
    context: dg.OpExecutionContext, config: AcceptFinding, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Accept one finding, and show what is left of them."""
    tools = operations.tools()
    desk = OperatorDesk(tools, preview=config.preview)
    _act(context, tools, config.operator, config.reason, lambda who: desk.accept_finding(config.finding, who))
    report_agreement(context.instance, tools.engine)


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def operate_order() -> None:
    """Retry, refund, resolve or cancel one order: fill in the Launchpad and launch."""
    act_on_order()


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def operate_provider() -> None:
    """Enable, disable or reset one provider: fill in the Launchpad and launch."""
    act_on_provider()


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def operate_stock() -> None:
    """Give back or write off one eSIM that no order got: fill in the Launchpad and launch."""
    act_on_stock()


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def accept_finding() -> None:
    """Accept one disagreement that is right as it is: fill in the Launchpad and launch."""
    act_on_finding()


def _on_order(desk: OperatorDesk, who: Operator, config: OperateOrder) -> Done:
    order_id, units = desk.order_id(config.order), tuple(config.units)
    if config.action in {OrderAction.NOT_BOUGHT, OrderAction.BOUGHT, OrderAction.ABANDON}:
        return _on_doubt(desk, who, config)
    if config.action is OrderAction.RETRY:
        retry = RetryOptions(units, config.extend_deadline_minutes, config.release_hold, config.goodwill)
        return desk.retry(order_id, who, retry)
    if config.action is OrderAction.CANCEL:
        return desk.cancel(order_id, who, release_hold=config.release_hold)
    if config.action is OrderAction.RESEND_NOTICES:
        return desk.resend(who, order_id)
    if bool(units) == config.all_units:
        raise InvalidInput(f"{config.action.value}: give units, or set all_units", field="units")
    options = RefundOptions(units, config.even_if_open, config.release_hold, config.again)
    if config.action is OrderAction.PAID_ELSEWHERE:
        return desk.paid_elsewhere(order_id, who, options)
    return desk.refund(order_id, who, options, cancel_esim=config.cancel_esim)


def _on_doubt(desk: OperatorDesk, who: Operator, config: OperateOrder) -> Done:
    if len(config.units) != 1:
        raise InvalidInput(f"{config.action.value} is about one eSIM: give its number in units", field="units")
    order_id, doubt = desk.order_id(config.order), Doubt(config.units[0], config.attempt)
    if config.action is OrderAction.NOT_BOUGHT:
        return desk.not_bought(order_id, who, doubt)
    if config.action is OrderAction.ABANDON:
        return desk.abandon(order_id, who, doubt, release_hold=config.release_hold)
    if not config.provider_order_id:
        raise InvalidInput("bought needs provider_order_id: the order at the provider", field="provider_order_id")
    number, although_unproven = config.provider_order_id, config.although_unproven
    return desk.bought(order_id, who, doubt, number, although_unproven=although_unproven)


def _act(
    context: dg.OpExecutionContext, tools: OrderTools, name: str, reason: str, action: Callable[[Operator], Done]
) -> None:
    who = decides(name, reason, tools.clock(), context.run_id)
    try:
        done = action(who)
    except NumnaRoadError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    metadata: dict[str, object] = {"subject": done.subject, "changes": "\n".join(done.changes) or "nothing to do"}
    if done.left_alone:
        metadata["left_alone"] = "\n".join(done.left_alone)
    if done.order_id is not None:
        metadata["order_id"] = str(done.order_id)
    context.add_output_metadata(metadata)


operator_jobs: list[dg.JobDefinition] = [operate_order, operate_provider, operate_stock, accept_finding]
