"""The clocks of the order jobs. A tick that finds nothing to do starts no run and says what it looked at."""

from datetime import timedelta

import dagster as dg
from sqlalchemy import text

from pipelines.order_jobs import STUCK_AFTER, check_stuck_orders, poll_pending_orders, retry_failed_orders
from resources.db.stuck import stuck_orders
from resources.order_operations import OrderTools, ToolSource

_RUNNING = dg.DefaultScheduleStatus.RUNNING
Decision = dg.RunRequest | dg.SkipReason
_OVERDUE = timedelta(minutes=1)  # a drain takes what is due within a second; later means none did


@dg.schedule(job=poll_pending_orders, cron_schedule="*/5 * * * *", default_status=_RUNNING)
def poll_pending_schedule(operations: dg.ResourceParam[ToolSource]) -> Decision:
    """Every five minutes: look up open purchases that are due, and ask for payment fees that are not booked yet."""
    tools = operations.tools()
    statement = (
        "select (select count(*) from esims"
        " where status in ('pending', 'unknown', 'attention') and next_attempt_at <= :at)"
        " + (select count(*) from purchase_attempts where look_at <= :at)"
        " + (select count(*) from orders where fee_due_at <= :at)"
    )
    return run_if(_count(tools, statement, tools.clock()), "open purchases or payment fees are due")


@dg.schedule(job=retry_failed_orders, cron_schedule="*/10 * * * *", default_status=_RUNNING)
def retry_failed_schedule(operations: dg.ResourceParam[ToolSource]) -> Decision:
    """Every ten minutes: work units whose retry is overdue, refund given-up units nobody refunds."""
    tools = operations.tools()
    statement = "select (select count(*) from esims where status = 'queued' and next_attempt_at <= :at)"
    if tools.settings.enable_auto_refund:
        statement += (
            " + (select count(*) from esims e where e.status = 'failed' and not exists ("
            "select 1 from refunds r where r.order_id = e.order_id and r.esim_n = e.n))"
        )
    return run_if(_count(tools, statement, tools.clock() - _OVERDUE), "units are overdue or given up without a refund")


@dg.schedule(job=check_stuck_orders, cron_schedule="7 * * * *", default_status=_RUNNING)
def check_stuck_schedule(operations: dg.ResourceParam[ToolSource]) -> Decision:
    """Every hour: check orders that were paid over an hour ago and are not done."""
    tools = operations.tools()
    with tools.engine.connect() as conn:
        return run_if(len(stuck_orders(conn, tools.clock() - STUCK_AFTER, tools.clock())), "orders are stuck")


def run_if(count: int, what: str) -> Decision:
    """Return a run when there is something to do, else a reason with the number."""
    return dg.RunRequest() if count else dg.SkipReason(f"{count} {what}")


def _count(tools: OrderTools, statement: str, at: object) -> int:
    with tools.engine.connect() as conn:
        return int(conn.scalar(text(statement), {"at": at}) or 0)


order_schedules: list[dg.ScheduleDefinition] = [poll_pending_schedule, retry_failed_schedule, check_stuck_schedule]
