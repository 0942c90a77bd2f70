"""`numnaroad provider …`: see how providers fare, switch them on and off, close a circuit."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.acting import As, Reason, Yes, act
from cli.console import make_console
from resources.settings import PROVIDERS, load_settings

if TYPE_CHECKING:
    from resources.db.operator_providers import ProviderReport

app = typer.Typer(help="Look at providers and switch them.", no_args_is_help=True)

Slug = Annotated[str, typer.Argument(help=f"One of {', '.join(PROVIDERS)}")]


@app.callback()
def provider() -> None:
    """Look at providers and switch them."""


@app.command("list")
def list_providers() -> None:
    """Show every provider: on or off, how it stands, circuit, failures, balance, what is open there."""
    table = Table(
        "provider",
        "enabled",
        "standing",
        "circuit",
        "failures",
        "last success",
        "balance",
        "offers",
        "open",
        "in stock",
        "catalogue",
        header_style="bold",
    )
    from cli.order_pages import text_of

    for each in _reports(None):
        values = (each.circuit, each.failures, each.last_success_at, each.balance, each.offers)
        counts = (each.open_purchases, each.in_stock)
        held = f"held: {each.held_reason}" if each.held_reason else text_of(each.synced_at)
        enabled = "yes" if each.enabled else "no"
        table.add_row(
            each.slug, enabled, each.standing, *(escape(text_of(value)) for value in (*values, *counts, held))
        )
    make_console().print(table)


@app.command("show")
def show(slug: Slug) -> None:
    """Show everything about one provider."""
    from dataclasses import asdict

    from cli.order_pages import text_of

    console = make_console()
    for each in _reports(slug):
        for name, value in asdict(each).items():
            if value is not None:
                console.print(f"  {name:18} {escape(text_of(value))}")


@app.command("enable")
def enable(slug: Slug, reason: Reason, name: As = None, yes: Yes = False) -> None:
    """Buy from a provider again; prices follow within a minute."""
    act(reason, name, yes, lambda desk, who: desk.enable_provider(slug, who, enabled=True))


@app.command("disable")
def disable(slug: Slug, reason: Reason, name: As = None, yes: Yes = False) -> None:
    """Buy nothing more from a provider; what is open there goes on, and prices follow within a minute."""
    act(reason, name, yes, lambda desk, who: desk.enable_provider(slug, who, enabled=False))


@app.command("reset")
def reset(slug: Slug, reason: Reason, name: As = None, yes: Yes = False) -> None:
    """Close a provider's circuit at once."""
    act(reason, name, yes, lambda desk, who: desk.reset_provider(slug, who))


def _reports(slug: str | None) -> "list[ProviderReport]":
    from resources.db.databases import databases, make_engine
    from resources.db.operator_providers import provider_reports
    from resources.order_operations import utc_now

    engine = make_engine(databases(load_settings()).operational, pool_size=1)
    with engine.connect() as connection:
        found = provider_reports(connection, utc_now(), slug)
    engine.dispose()
    return found
