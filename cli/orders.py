"""`numnaroad order …`: look at one order, and mend it, without SQL and without personal data."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.acting import As, Reason, Yes, act
from cli.console import make_console
from esim.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from resources.db.audit import Operator
    from resources.db.operator_actions import Done
    from resources.operator_desk import OperatorDesk

    OrderAction = Callable[["OperatorDesk", "Operator", "UUID"], "Done"]

app = typer.Typer(help="Look at orders and mend them.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(help="Order id, or display id such as OID001")]
Units = Annotated[list[int] | None, typer.Option("--unit", help="Only this eSIM; may be given more than once")]
ReleaseHold = Annotated[
    bool, typer.Option("--release-hold", help="What the order is held for (a dispute, say) is settled")
]
EvenIfOpen = Annotated[
    bool, typer.Option("--even-if-open", help="Although a purchase is open: what turns up later goes to stock")
]


@app.callback()
def order() -> None:
    """Look at orders and mend them."""


@app.command("show")
def show(reference: Reference) -> None:
    """Show an order: state, what to do, units, purchase attempts, events, ledger, notices and refunds."""
    from cli.order_pages import print_order
    from resources.db.attention import items_of_order
    from resources.db.databases import databases, make_engine
    from resources.db.order_report import find_order_id, order_report
    from resources.order_operations import utc_now
    from resources.settings import load_settings

    engine = make_engine(databases(load_settings()).operational, pool_size=1)
    with engine.connect() as connection:
        order_id = find_order_id(connection, reference)
        report, items = order_report(connection, order_id), items_of_order(connection, order_id, utc_now())
    engine.dispose()
    print_order(make_console(), report, items)


@app.command("retry")
def retry(
    reference: Reference,
    reason: Reason,
    unit: Units = None,
    extend_deadline: Annotated[int | None, typer.Option(min=1, max=10_080, help="Minutes from now")] = None,
    release_hold: ReleaseHold = False,
    goodwill: Annotated[
        bool, typer.Option("--goodwill", help="A gift: deliver although the bank or the customer has the money")
    ] = False,
    name: As = None,
    yes: Yes = False,
) -> None:
    """Try failed, waiting and attention eSIMs of a paid order again at once."""
    from resources.db.operator_retry import RetryOptions

    options = RetryOptions(tuple(unit or ()), extend_deadline, release_hold, goodwill)
    _act(reference, reason, name, yes, lambda desk, who, order_id: desk.retry(order_id, who, options))


@app.command("refund")
def refund(  # noqa: PLR0913, PLR0917 - one parameter an option
    reference: Reference,
    reason: Reason,
    unit: Units = None,
    every: Annotated[bool, typer.Option("--all", help="Every eSIM, delivered ones too")] = False,
    cancel_esim: Annotated[bool, typer.Option(help="Ask the provider to take delivered eSIMs back")] = False,
    even_if_open: EvenIfOpen = False,
    again: Annotated[bool, typer.Option(help="Ask again for a refund that failed for good")] = False,
    paid_elsewhere: Annotated[
        bool, typer.Option(help="Pay nothing: the customer has the money (by hand, by bank, by a lost dispute)")
    ] = False,
    release_hold: ReleaseHold = False,
    name: As = None,
    yes: Yes = False,
) -> None:
    """Pay eSIMs back: each its price, once; what is not delivered is given up first."""
    from resources.db.operator_refunds import RefundOptions

    if bool(unit) == every:
        raise InvalidInput("say which eSIMs: --unit N (once for each), or --all")
    if paid_elsewhere and (again or cancel_esim):
        raise InvalidInput("--paid-elsewhere pays and asks for nothing: it goes with neither --again nor --cancel-esim")
    options = RefundOptions(tuple(unit or ()), even_if_open, release_hold, again)
    if paid_elsewhere:
        _act(reference, reason, name, yes, lambda desk, who, order_id: desk.paid_elsewhere(order_id, who, options))
    else:
        _act(
            reference,
            reason,
            name,
            yes,
            lambda desk, who, order_id: desk.refund(order_id, who, options, cancel_esim=cancel_esim),
        )


@app.command("resolve")
def resolve(  # noqa: PLR0913, PLR0917 - one parameter an option
    reference: Reference,
    unit: Annotated[int, typer.Option(help="The eSIM whose purchase is unclear")],
    reason: Reason,
    not_bought: Annotated[bool, typer.Option("--not-bought", help="The provider sold nothing for it")] = False,
    bought: Annotated[str | None, typer.Option(metavar="ID", help="The provider's order that bought it")] = None,
    abandon: Annotated[bool, typer.Option("--abandon", help="Nobody can tell: pay it back")] = False,
    attempt: Annotated[
        int | None, typer.Option(help="The attempt that was looked into; another one is refused")
    ] = None,
    although_unproven: Annotated[
        bool,
        typer.Option(
            "--although-unproven",
            help="With --bought: although the order looks older, or another purchase of the same plan is open",
        ),
    ] = False,
    release_hold: ReleaseHold = False,
    name: As = None,
    yes: Yes = False,
) -> None:
    """Say what became of a purchase whose answer was lost, having looked at the provider."""
    from resources.db.operator_resolve import Doubt

    if [not_bought, bought is not None, abandon].count(True) != 1:
        raise InvalidInput("say one of --not-bought, --bought ID and --abandon")
    if although_unproven and bought is None:
        raise InvalidInput("--although-unproven goes with --bought ID")
    doubt = Doubt(unit, attempt)

    def resolved(desk: "OperatorDesk", who: "Operator", order_id: "UUID") -> "Done":
        if bought is not None:
            return desk.bought(order_id, who, doubt, bought, although_unproven=although_unproven)
        if abandon:
            return desk.abandon(order_id, who, doubt, release_hold=release_hold)
        return desk.not_bought(order_id, who, doubt)

    _act(reference, reason, name, yes, resolved)


@app.command("cancel")
def cancel(
    reference: Reference, reason: Reason, release_hold: ReleaseHold = False, name: As = None, yes: Yes = False
) -> None:
    """Cancel an order: an unpaid one is closed, of a paid one what is not delivered is paid back."""
    _act(
        reference,
        reason,
        name,
        yes,
        lambda desk, who, order_id: desk.cancel(order_id, who, release_hold=release_hold),
    )


def _act(reference: str, reason: str, name: str | None, yes: bool, action: "OrderAction") -> None:
    """Do something to the order a person means."""
    act(reason, name, yes, lambda desk, who: action(desk, who, desk.order_id(reference)))
