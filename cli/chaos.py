"""`numnaroad chaos`: the public fault campaign, and the recovery scenarios, against a shop of their own."""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import make_console
from cli.ports import free_ports

if TYPE_CHECKING:  # the campaign is heavy: `numnaroad --help` must not wait for it
    from chaos.campaign import Result
    from chaos.platform_recovery import Back


def chaos(  # noqa: PLR0913, PLR0917 - one parameter an option
    seed: Annotated[int, typer.Option(help="The seed of the first campaign: repeats what one printed")] = 1,
    orders: Annotated[int, typer.Option(min=1, help="Orders in each campaign")] = 60,
    seeds: Annotated[int, typer.Option(min=0, help="How many campaigns, with this seed and those after it")] = 1,
    processes: Annotated[int, typer.Option(min=1, max=8, help="Campaigns at a time, each with its own servers")] = 1,
    sweep: Annotated[bool, typer.Option(help="Also kill a worker at every commit and request there is")] = False,
    faults: Annotated[bool, typer.Option(help="Also have every fault strike every provider that has it")] = False,
    pauses: Annotated[bool, typer.Option(help="Also put workers to sleep past their lease, in real time")] = False,
    recovery: Annotated[bool, typer.Option(help="Also play the five recovery scenarios, in real time")] = False,
    platform: Annotated[
        bool, typer.Option(help="Also kill parts of the whole running platform at random, in real time")
    ] = False,
    logs: Annotated[Path | None, typer.Option(help="Keep what the platform's parts said in this folder")] = None,
    plant: Annotated[str, typer.Option(help="Plant a bug, to see it found: buys-again")] = "",
) -> None:
    """Throw faults, kills and lost messages at a shop, then ask providers, Stripe and mail what became of every unit.

    Exits 1 when a promise was broken, with the seed and the whole history of the unit.
    """
    from chaos.planted import BUGS
    from chaos.runner import Plan, run, run_platform
    from cli.processes import leave_on_sigterm

    if plant and plant not in BUGS:
        raise typer.BadParameter(f"there is no bug {plant!r}; there is {', '.join(BUGS)}")
    if not seeds and (sweep or faults or pauses or recovery or not platform):
        raise typer.BadParameter("without seeds there is only --platform to play")
    leave_on_sigterm()
    plan = Plan(tuple(range(seed, seed + seeds)), orders, seed, sweep, faults, pauses, recovery, plant)
    free = iter(free_ports(3 * min(processes, seeds)))
    ports = list(zip(free, free, free, strict=True))
    say = partial(make_console().print, markup=False, highlight=False, soft_wrap=True)
    report = run(plan, ports, say)
    if platform:
        run_platform(report, partial(_on_a_platform, logs), say)
    say(report.text())
    if not report.clean:
        sys.exit(1)


def _on_a_platform(
    logs: Path | None, seed: int, orders: int, say: Callable[[str], None]
) -> "tuple[Result, list[Back]]":
    from chaos.platform import Processes, own_settings, play_platform
    from cli.own_platform import PARTS, own_platform
    from cli.processes import end_for_certain, start_part

    with own_platform("numnaroad-chaos-", own_settings(seed)) as platform:
        start = partial(start_part, environment=platform.environment, logs=platform.logs)
        try:
            return play_platform(
                platform.settings, Processes(start, end_for_certain, platform.fill, PARTS), seed, orders, say
            )
        finally:
            if logs is not None:
                shutil.copytree(platform.logs, logs, dirs_exist_ok=True)
