"""`numnaroad notices …`: mails and Slack notes that nobody could hand over."""

from typing import Annotated

import typer

from cli.acting import As, Reason, Yes, act

app = typer.Typer(help="Mails and Slack notes.", no_args_is_help=True)


@app.callback()
def notices() -> None:
    """Mails and Slack notes."""


@app.command("resend")
def resend(
    reason: Reason,
    order: Annotated[str | None, typer.Option(metavar="REF", help="Only this order's")] = None,
    name: As = None,
    yes: Yes = False,
) -> None:
    """Hand over at once what could not be handed over before, given up or not."""
    act(reason, name, yes, lambda desk, who: desk.resend(who, desk.order_id(order) if order else None))
