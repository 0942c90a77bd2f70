"""`numnaroad reconcile`: look now for what does not agree, mend what can be mended, and say what is left.

Since it mends, who looked is kept in the audit with what was found and mended, whether or not it came to its end.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.acting import As, Yes, act, looker, order_tools
from cli.console import make_console
from esim.errors import NumnaRoadError

if TYPE_CHECKING:
    from resources.db.audit import Look
    from resources.db.findings import OpenFinding
    from resources.order_operations import OrderTools


def reconcile(  # noqa: PLR0913, PLR0917 - one parameter an option
    payments: Annotated[bool, typer.Option("--payments", help="Stripe's events and pages against our orders.")] = False,
    providers: Annotated[bool, typer.Option("--providers", help="Provider statements against our purchases.")] = False,
    books: Annotated[bool, typer.Option("--books", help="Orders, events and ledger; ledger against Stripe.")] = False,
    since: Annotated[str, typer.Option(help="From when (2026-11-01, or with a time, UTC); else since the last.")] = "",
    full: Annotated[bool, typer.Option("--full", help="With --books: every order, not only what changed.")] = False,
    accept: Annotated[int, typer.Option(help="Accept the finding with this number instead of comparing.")] = 0,
    reason: Annotated[str, typer.Option(help="Why; with --accept it must be said.")] = "",
    name: As = None,
    yes: Yes = False,
) -> None:
    """Compare orders, ledger, Stripe and provider statements; exit 1 while something disagrees.

    Without options all three sides are compared.
    """
    from pipelines.looks import RECONCILE
    from resources.db.audit import audited_look

    if accept:
        act(reason, name, yes, lambda desk, who: desk.accept_finding(accept, who))
        return
    console, start = make_console(), _moment(since)
    everything = not (payments or providers or books)
    with order_tools() as tools:
        looks: dict[str, Callable[[Look], bool]] = {}
        if payments or everything:
            looks["payments"] = partial(_payments, tools, console, start)
        if providers or everything:
            looks["providers"] = partial(_providers, tools, console, start)
        if books or everything:
            looks["books"] = partial(_books, tools, console, start, full=full)
        with audited_look(tools.engine, looker(tools, name, reason), RECONCILE, ", ".join(looks)) as look:
            agreed = all([_told(console, side, take, look) for side, take in looks.items()])
        chosen = {"payments": payments or books, "providers": providers, "books": books}
        sides = [] if everything else [side for side, wanted in chosen.items() if wanted]
        if not (_left(tools, console, sides, looked=agreed) and agreed):
            raise typer.Exit(1)


def _told(console: Console, side: str, take: "Callable[[Look], bool]", look: "Look") -> bool:
    """Look at one side; one that cannot be looked at is said, and the others go on."""
    try:
        return take(look)
    except NumnaRoadError as error:
        look.found.append(f"{side}: not looked at to the end ({type(error).__name__})")
        console.print(f"[red]{error}[/red]", soft_wrap=True)
        return False


def _payments(tools: "OrderTools", console: Console, since: datetime | None, look: "Look") -> bool:
    from pipelines.looks import note_payments
    from pipelines.reconcile_payments import GRACE, reconcile_payments

    report = reconcile_payments(tools, since, look.changes)
    note_payments(look, report)
    console.print(
        f"Stripe since {report.since:%Y-%m-%d %H:%M}: {report.events} events and {report.sessions} payment pages read, "
        f"{report.lost} webhooks lost (those younger than {GRACE.seconds // 60} minutes are left to their webhook), "
        f"{len(report.mended)} things mended",
        soft_wrap=True,
    )
    _print(console, "Mended", ("what",), [(what,) for what in report.mended])
    _print(console, "Not applied", ("what",), [(what,) for what in report.failed])
    return not report.failed


def _providers(tools: "OrderTools", console: Console, since: datetime | None, look: "Look") -> bool:
    from pipelines.looks import note_providers
    from pipelines.reconcile_providers import reconcile_providers

    reports = reconcile_providers(tools, since)
    note_providers(look, reports)
    rows = [
        (r.provider, r.lines, r.looked_up, r.kept_as_stock, r.settled.open if r.settled else "", r.balance, r.trouble)
        for r in reports
    ]
    names = ("provider", "lines", "read again", "kept as stock", "open", "balance", "trouble")
    _print(console, "Provider statements", names, rows)
    days = [(r.provider, d.day, d.theirs, d.ours, d.their_cost, d.our_cost) for r in reports for d in r.days]
    _print(console, "Per day", ("provider", "day", "sold there", "bought here", "their cost", "our cost"), days)
    return not any(report.trouble for report in reports)


def _books(tools: "OrderTools", console: Console, since: datetime | None, look: "Look", *, full: bool) -> bool:
    from pipelines.looks import note_books
    from pipelines.prove_books import prove_books

    report = prove_books(tools, since=since, full=full)
    note_books(look, report)
    console.print(f"Books: {report.orders} orders looked at")
    rows = [(d.day, d.currency, d.paid, d.booked_paid, d.refunded, d.booked_refunded) for d in report.days]
    names = ("day", "currency", "paid at Stripe", "in the ledger", "refunded at Stripe", "in the ledger ")
    _print(console, "Ledger against Stripe", names, rows)
    return True


def _left(tools: "OrderTools", console: Console, sides: Sequence[str], *, looked: bool) -> bool:
    """Print what disagrees; return whether nothing does. Only who `looked` everywhere may say that all agrees."""
    from resources.db.findings import open_findings

    with tools.engine.connect() as conn:
        found = open_findings(conn, sides)
    if found or looked:
        print_findings(console, found)
    else:
        console.print("Nothing else is known to disagree, but not everything could be looked at or applied.")
    return not found


def print_findings(console: Console, found: "Sequence[OpenFinding]") -> None:
    """Print open findings, or that there are none."""
    if not found:
        console.print("Everything agrees.")
        return
    rows = [
        (
            one.finding_id,
            one.side,
            one.kind,
            one.display_id or "",
            str(one.details["text"]),
            f"{one.first_seen:%Y-%m-%d %H:%M}",
        )
        for one in found
    ]
    _print(console, f"{len(found)} findings", ("number", "side", "kind", "order", "what", "since"), rows)


def _print(console: Console, title: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    lines = [tuple("" if value is None else str(value) for value in row) for row in rows]
    if not lines:
        return
    table = Table(*names, title=title, title_justify="left", header_style="bold")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _moment(since: str) -> datetime | None:
    if not since:
        return None
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise typer.BadParameter(f"{since!r} is no date; write 2026-11-01 or 2026-11-01T08:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
