"""Run the Procfile's processes in the background with their output in files, and end them for certain."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template

from honcho.environ import parse_procfile

ROOT = Path(__file__).resolve().parent.parent
_GRACE_SECONDS = 10


def leave_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception would: everything it started is ended with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def background(
    parts: Sequence[str], environment: Mapping[str, str], logs: Path
) -> Iterator[Mapping[str, "subprocess.Popen[bytes]"]]:
    """Start the named processes, each with `logs/<name>.log`, and hand them out; on leaving, end them for certain."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in parts:
            started[name] = start_part(name, environment, logs)
        yield started
    finally:
        end_for_certain(list(started.values()))


def start_part(name: str, environment: Mapping[str, str], logs: Path) -> "subprocess.Popen[bytes]":
    """Start one of the Procfile's processes in a session of its own, its output added to `logs/<name>.log`."""
    logs.mkdir(parents=True, exist_ok=True)
    line = parse_procfile((ROOT / "Procfile").read_text()).processes[name]
    with (logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - the command is a line of our own Procfile
            shlex.split(Template(line).substitute(environment)),
            cwd=ROOT,
            env=dict(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_for_certain(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ask processes to end, kill those that do not, and what they leave behind in their sessions."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()
        _signal(process, signal.SIGKILL)  # what the process left behind in its session


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
