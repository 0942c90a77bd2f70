"""`numnaroad refunds …`: money on its way back that Stripe put off."""

from typing import Annotated

import typer

from cli.acting import As, Reason, Yes, act

app = typer.Typer(help="Refunds that Stripe put off.", no_args_is_help=True)


@app.callback()
def refunds() -> None:
    """Refunds that Stripe put off."""


@app.command("retry")
def retry(
    reason: Reason,
    order: Annotated[str | None, typer.Option(metavar="REF", help="Only this order's")] = None,
    name: As = None,
    yes: Yes = False,
) -> None:
    """Try at once what would be tried later; each refund is still paid once."""
    act(reason, name, yes, lambda desk, who: desk.retry_refunds(who, desk.order_id(order) if order else None))
