"""`numnaroad sync` and `numnaroad packages`: bring catalogues in, and see what is on sale and why it costs that."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from cli.acting import As, Yes, act
from cli.console import make_console
from esim.errors import NotFound
from resources.settings import PROVIDERS, Settings, load_settings

if TYPE_CHECKING:  # polars, duckdb and the adapters are heavy: `numnaroad --help` must not wait for them
    from assets.catalogue_sync import SyncReport

_SHOWN = 40


def sync(
    provider: Annotated[list[str] | None, typer.Option(help="Only this provider; may be given more than once")] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="Do not hold this provider: a person has checked its moves")
    ] = None,
    reason: Annotated[str, typer.Option(help="With --accept: why its moves are right; it is kept")] = "",
    name: As = None,
    yes: Yes = False,
) -> None:
    """Read the providers' catalogues, work out the best prices and publish them."""
    console = make_console()
    if accept:
        act(reason, name, yes, lambda desk, who: desk.accept_catalogues(accept, who))
    report = sync_with_progress(load_settings(), console, providers=provider, accept=accept or ())
    if report.held:
        raise typer.Exit(1)


def sync_with_progress(
    settings: Settings, console: Console, *, providers: Sequence[str] | None, accept: Sequence[str] = ()
) -> "SyncReport":
    """Sync with a progress bar per provider, print the result, and return it.

    Raises:
        NotFound: there is no such provider.
    """
    from assets.catalogue_sync import sync_catalogue
    from resources.catalogue_desk import catalogue_desk

    columns = (SpinnerColumn(), TextColumn("{task.description:12}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars, catalogue_desk(settings) as desk:
        tasks = {slug: bars.add_task(slug, total=None, state="asking") for slug in providers or PROVIDERS}
        report = sync_catalogue(desk, providers=providers, accept=accept, progress=_advance(bars, tasks))
        for received in report.received:
            bars.update(
                tasks[received.provider], total=1, completed=1, state=f"{received.download.offers.height} plans"
            )
    _print_report(console, report)
    return report


def _advance(bars: Progress, tasks: Mapping[str, Any]) -> Callable[[str, int, int | None, int], None]:
    def advance(slug: str, page: int, pages: int | None, offers: int) -> None:
        bars.update(tasks[slug], total=pages, completed=page, state=f"page {page}, {offers} plans")

    return advance


def _print_report(console: Console, report: "SyncReport") -> None:
    table = Table("provider", "plans", "rejected", "quarantined", "seconds", "state", header_style="bold")
    for each in report.received:
        got = each.download
        state = (
            f"[red]held: {escape(each.held_reason)}[/red]"
            if each.held_reason
            else "changed"
            if each.changed
            else "as before"
        )
        counts = (got.offers.height, got.rejects.height, each.quarantined)
        table.add_row(each.provider, *map(str, counts), f"{got.seconds:.1f}", state)
    console.print(table)
    done = report.published
    what = f"{done.on_sale} packages on sale, {done.changed_packages} packages and {done.changed_offers} offers changed"
    console.print(f"Catalogue version {done.version}: {what}.")


def packages(
    destination: Annotated[str | None, typer.Option(help="Country code such as JP, or region such as europe")] = None,
    explain: Annotated[bool, typer.Option(help="Show every candidate offer of each package")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows shown")] = _SHOWN,
) -> None:
    """Show what is on sale, cheapest first; with --explain, why it costs that, and what is not on sale and why."""
    from resources.db.catalogue_report import candidates_of, listed_packages
    from resources.db.databases import databases, make_engine

    engine = make_engine(databases(load_settings()).operational, pool_size=1)
    with engine.connect() as connection:
        rows = listed_packages(connection, destination, limit, off_sale=explain)
        candidates = candidates_of(connection, [row["package_id"] for row in rows]) if explain else {}
    if not rows:
        where = f" for {destination}" if destination else ""
        raise NotFound(f"nothing is on sale{where}; run `numnaroad sync`, or ask for a code such as JP or europe")
    console = make_console()
    table = Table(
        Column("package", no_wrap=True),
        "destination",
        "data",
        "days",
        "price USD",
        "cost USD",
        "offers",
        "best",
        header_style="bold",
    )
    for row in rows:
        best = row["best_offer_id"].partition(":")[0] if row["on_sale"] else "not on sale"
        table.add_row(*map(escape, _package_cells(row)), best)
        for offer in candidates.get(row["package_id"], ()):
            table.add_row(*map(escape, _offer_cells(offer, row)), style="dim")
    console.print(table)


def _package_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    data = "unlimited" if row["data_mb"] is None else f"{row['data_mb']} MB"
    price = f"{Decimal(row['price_minor_usd']).scaleb(-2):.2f}"
    return (
        row["package_id"],
        row["destination_name"],
        data if row["allowance"] != "daily" else f"{data} a day",
        str(row["validity_days"]),
        price,
        _usd(row["best_landed_micros"]),
        str(row["offer_count"]),
    )


def _offer_cells(offer: Mapping[str, Any], package: Mapping[str, Any]) -> tuple[str, ...]:
    state = "best price" if offer["is_best_price"] else ""
    if reason := _why_not(offer):
        state = f"{state}, but now: {reason}" if state else reason
    elif not state:
        state = _beaten(offer, package)
    return (f"  {offer['provider_package_id']}", "", "", "", "", _usd(offer["landed_micros"]), offer["provider"], state)


def _why_not(offer: Mapping[str, Any]) -> str:
    """Return why an offer may not be the best now; empty when it may."""
    if not offer["on_offer"]:
        return "withdrawn"
    if offer["excluded_reason"]:
        return str(offer["excluded_reason"])
    if not offer["provider_enabled"]:
        return "the provider is switched off"
    if offer["provider_resting"]:
        return "the provider rests after failures"
    if offer["stock"] is not None and offer["stock"] <= 0:
        return "out of stock"
    if not offer["auto_mode"] and not offer["is_enabled"]:
        return "switched off by a person"
    return ""


def _beaten(offer: Mapping[str, Any], package: Mapping[str, Any]) -> str:
    if not package["on_sale"] or offer["landed_micros"] < package["best_landed_micros"]:
        return "joins at the next publication"
    return "dearer" if offer["landed_micros"] > package["best_landed_micros"] else "as dear, with less priority"


def _usd(micros: int) -> str:
    return f"{Decimal(micros).scaleb(-6):.2f}"
