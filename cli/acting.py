"""Commands that change something: who types them, what they are about to do, and the word that lets them do it."""

import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cli.console import make_console
from esim.errors import InvalidInput

if TYPE_CHECKING:  # dagster and the adapters are heavy: `numnaroad --help` must not wait for them
    from resources.db.audit import Operator
    from resources.db.operator_actions import Done
    from resources.operator_desk import OperatorDesk
    from resources.order_operations import OrderTools
    from resources.settings import Settings

Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the action, so nothing personal")]
Note = Annotated[str, typer.Option("--reason", help="Why you look; it may be left out, and is kept with the look")]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who acts, if not NUMNAROAD_OPERATOR or the login")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking")]


def act(reason: str, name: str | None, yes: bool, action: "Callable[[OperatorDesk, Operator], Done]") -> None:
    """Show what an action would do, ask, do it and say what was done.

    Raises:
        Refused: it may not be done; the sentence says what to do instead.
        InvalidInput: nobody can be asked here, and `yes` was not given.
    """
    from resources.operator_desk import OperatorDesk

    console = make_console()
    with order_tools() as tools:
        who = operator(tools, name, reason)
        plan = action(OperatorDesk(tools, preview=True), who)
        if not plan.changes:
            _say(console, plan, "Nothing to do")
            return
        if not yes:
            _say(console, plan, "About to do")
            _ask(console)
        _say(console, action(OperatorDesk(tools, agreed=plan.changes), who), "Done")


@contextmanager
def order_tools() -> "Iterator[OrderTools]":
    """Open the store, the providers and payments on what the settings name, and give their connections back."""
    from resources.order_operations import OrderTools
    from resources.settings import load_settings

    tools = OrderTools(load_settings())
    try:
        yield tools
    finally:
        if "providers" in tools.__dict__:
            for provider in tools.providers.values():
                provider.close()
        tools.close()


def operator(tools: "OrderTools", name: str | None, reason: str) -> "Operator":
    """Return who acts, now and for this reason."""
    from resources.db.audit import Operator

    return Operator(name or operator_name(tools.settings), reason, tools.clock())


def looker(tools: "OrderTools", name: str | None, reason: str) -> "Operator":
    """Return who looks, now; nothing is decided, so there need be no reason."""
    from resources.db.audit import looker as named

    return named(name or operator_name(tools.settings), reason, tools.clock())


def operator_name(settings: "Settings") -> str:
    """Return the name to act under: the setting's, else that of the login; empty where the login has none."""
    if settings.numnaroad_operator:
        return settings.numnaroad_operator
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may be a number only
        return ""


def _ask(console: Console) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput("nobody can be asked here: add --yes to do this without asking; nothing was changed")
    if not typer.confirm("Do it?"):
        console.print("Nothing was changed.")
        raise typer.Exit(1)


def _say(console: Console, done: "Done", title: str) -> None:
    console.print(f"[bold]{title}[/bold]: {escape(done.subject)}", highlight=False)
    for change in done.changes:
        console.print(f"  {escape(change)}", highlight=False)
    for left in done.left_alone:
        console.print(f"  [dim]left alone: {escape(left)}[/dim]", highlight=False)
