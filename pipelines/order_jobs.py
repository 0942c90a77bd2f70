"""The jobs around paid orders: look-ups, retries, stuck orders, notices, refunds. Each is safe to run at any time."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg
from pydantic import Field

from pipelines.aftermath import book_fees, pay_refunds, pay_waiting_refunds
from pipelines.drain import Drain, DrainLimits
from pipelines.hand_over import send_notices
from pipelines.open_purchases import look_up_open_purchases
from pipelines.provisioning import MAX_RUNTIME, provision_orders, show, tell
from pipelines.unit_work import UnitReport
from resources.by_hand import ByHand
from resources.db.audit import audited_look
from resources.db.stuck import nudge_order, refund_failed_units, show_stuck_order, stuck_orders
from resources.order_operations import OrderTools, ToolSource

STUCK_AFTER = timedelta(hours=1)
SWEEP_SECONDS = 240.0  # a sweep ends before its clock strikes again


@dg.op(description="Ask providers about purchases that were accepted, or whose answer was lost.")
def poll_open_purchases(context: dg.OpExecutionContext, operations: dg.ResourceParam[ToolSource]) -> None:
    """Look up every open purchase that is due."""
    tools = operations.tools()
    reports = look_up_open_purchases(tools, "poll_pending_orders", context.run_id)
    _show(context, reports, {})
    _follow_up(tools, "poll_pending_orders")


@dg.op(description="Work units whose retry time has come, and see that given-up units are paid back.")
def retry_waiting_units(context: dg.OpExecutionContext, operations: dg.ResourceParam[ToolSource]) -> None:
    """Sweep the queue once."""
    tools = operations.tools()
    asked = 0
    if tools.settings.enable_auto_refund:
        asked = refund_failed_units(tools.engine, "retry_failed_orders", tools.clock())
    _show(context, _sweep(tools, context), {"refunds_requested": asked})


@dg.op(description="Check orders paid over an hour ago at the providers; move them on or show them to a person.")
def check_orders(context: dg.OpExecutionContext, operations: dg.ResourceParam[ToolSource]) -> None:
    """Make every unit of a stuck order due, work them, and count what is stuck still."""
    tools = operations.tools()
    before = tools.clock() - STUCK_AFTER
    with tools.engine.connect() as conn:
        stuck = stuck_orders(conn, before, tools.clock())
    for order_id in stuck:
        nudge_order(tools.engine, order_id, "check_stuck_orders", tools.clock())
    reports = _sweep(tools, context) if stuck else []
    with tools.engine.connect() as conn:
        still = stuck_orders(conn, before, tools.clock())
    shown = [id for id in still if show_stuck_order(tools.engine, id, "check_stuck_orders", tools.clock())]
    ids = [str(order_id) for order_id in still[:50]]
    counts = {"stuck": len(stuck), "shown_to_a_person": len(shown), "still_stuck": len(still) - len(shown)}
    _show(context, reports, {**counts, "still_stuck_orders": ids})


@dg.op(description="Hand over mails and Slack notes that are due.")
def hand_over_notices(context: dg.OpExecutionContext, operations: dg.ResourceParam[ToolSource]) -> None:
    """Send what no drain has sent."""
    sent, failed = send_notices(operations.tools())
    context.add_output_metadata({"sent": sent, "failed": failed})


class RefundsConfig(ByHand):
    """Which refunds to pay; as it stands, all of them."""

    now: bool = Field(default=True, description="Also those that were put off and are tried again later.")


@dg.op(description="Pay refunds that are due, and at once those that are tried again later.")
def pay_due_refunds(
    context: dg.OpExecutionContext, config: RefundsConfig, operations: dg.ResourceParam[ToolSource]
) -> None:
    """Pay what no drain has paid, and tell of it."""
    tools = operations.tools()
    pay = pay_waiting_refunds if config.now else pay_refunds
    with audited_look(tools.engine, config.who(tools.clock(), context.run_id), "refunds work", "refunds") as look:
        paid, failed = pay(tools, "work_refunds")
        look.changes.append(f"{paid} refunds paid")
        look.found.append(f"{failed} refunds could not be paid")
    sent, _ = send_notices(tools)
    context.add_output_metadata({"paid": paid, "failed": failed, "notices": sent, "fees": book_fees(tools)})


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def poll_pending_orders() -> None:
    """Look up accepted and unclear purchases until they have an end; the safety net beside the drains."""
    poll_open_purchases()


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def retry_failed_orders() -> None:
    """Work units whose retry time has come and refund given-up ones; the safety net beside the sensor."""
    retry_waiting_units()


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def check_stuck_orders() -> None:
    """Check orders that should be done by now."""
    check_orders()


@dg.job(name="send_notices", executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def send_due_notices() -> None:
    """Send mails and Slack notes that no drain has sent."""
    hand_over_notices()


@dg.job(executor_def=dg.in_process_executor, tags=MAX_RUNTIME)
def work_refunds() -> None:
    """Pay refunds that no drain has paid, also those that were put off: launch it when the cause is mended."""
    pay_due_refunds()


def _sweep(tools: OrderTools, context: dg.OpExecutionContext) -> list[UnitReport]:
    limits = DrainLimits(tools.settings.drain_workers, idle_seconds=0.0, max_seconds=SWEEP_SECONDS)
    drain = Drain(tools, limits, run_id=context.run_id, tell=lambda reports: tell(context, reports))
    return drain.run().reports


def _show(context: dg.OpExecutionContext, reports: Sequence[UnitReport], more: dict[str, object]) -> None:
    show(context, reports, Counter((report.provider or "-", report.outcome) for report in reports), more)


def _follow_up(tools: OrderTools, actor: str) -> None:
    pay_refunds(tools, actor)
    send_notices(tools)
    book_fees(tools)


order_jobs: list[dg.JobDefinition] = [
    provision_orders,
    poll_pending_orders,
    retry_failed_orders,
    check_stuck_orders,
    send_due_notices,
    work_refunds,
]
