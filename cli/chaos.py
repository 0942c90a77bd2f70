"""`numnaroad chaos`: the public fault campaign, and the recovery scenarios, against a shop of their own."""

import signal
import sys
from typing import Annotated

import typer

from cli.console import make_console
from cli.ports import free_ports


def chaos(
    seed: Annotated[int, typer.Option(help="The seed of the first campaign: repeats what one printed")] = 1,
    orders: Annotated[int, typer.Option(min=1, help="Orders in each campaign")] = 60,
    seeds: Annotated[int, typer.Option(min=1, help="How many campaigns, with this seed and those after it")] = 1,
    processes: Annotated[int, typer.Option(min=1, max=8, help="Campaigns at a time, each with its own servers")] = 1,
    sweep: Annotated[bool, typer.Option(help="Also kill a worker at every commit and request there is")] = False,
    pauses: Annotated[bool, typer.Option(help="Also put workers to sleep past their lease, in real time")] = False,
    recovery: Annotated[bool, typer.Option(help="Also play the five recovery scenarios, in real time")] = False,
    plant: Annotated[str, typer.Option(help="Plant a bug, to see it found: buys-again")] = "",
) -> None:
    """Throw faults, kills and lost messages at a shop, then ask providers, Stripe and mail what became of every unit.

    Exits 1 when a promise was broken, with the seed and the whole history of the unit.
    """
    from chaos.planted import BUGS
    from chaos.runner import Plan, run

    if plant and plant not in BUGS:
        raise typer.BadParameter(f"there is no bug {plant!r}; there is {', '.join(BUGS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that everything started is ended
    plan = Plan(tuple(range(seed, seed + seeds)), orders, sweep, pauses, recovery, plant)
    free = iter(free_ports(3 * min(processes, seeds)))
    ports = list(zip(free, free, free, strict=True))
    console = make_console()
    report = run(plan, ports, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
    console.print(report.text(), markup=False, highlight=False, soft_wrap=True)
    if not report.clean:
        sys.exit(1)
