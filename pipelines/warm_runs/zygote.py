"""The warm process: imports Dagster and the definitions once, then forks a child for every run it is told of.

It has one thread of Python's, no native one that may be at work (`native_threads` says how) and opens no connection,
so that a child inherits memory and nothing else. It decides nothing: the host tells it what to fork and whom to signal,
it tells the host who started and who ended. When the host is gone it ends its children, which end their runs in
Dagster's eyes, and itself.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from time import monotonic
from typing import NoReturn

from pipelines.warm_runs.cards import Cards
from pipelines.warm_runs.native_threads import other_threads, still
from pipelines.warm_runs.signals import SignalPipe
from pipelines.warm_runs.wire import Lines, Message, line

_ENDED_BY = {signal.SIGTERM, signal.SIGINT}
_REHEARSAL_SECONDS = 15.0  # a database that does not answer must not keep runs waiting


def main() -> None:
    """Serve the host at the other end of the socket whose descriptor we were given."""
    given = json.loads(sys.argv[1])
    for number in _ENDED_BY:  # the host ends us, in its order
        signal.signal(number, signal.SIG_IGN)
    # From 3.12 on a fork beside any other thread warns, even one that is parked.
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    Zygote(socket.socket(fileno=given["fd"]), Path(given["place"]), given["grace"]).serve(
        given["module"], given["preload"]
    )


class Zygote:
    """One warm process."""

    def __init__(self, host: socket.socket, place: Path, grace: float) -> None:
        self._host, self._cards, self._grace = host, Cards(place), grace
        self._lines = Lines()
        self._children: dict[int, Message] = {}
        self._lifeline, self._held = os.pipe()  # children read; they hear of our end
        self._signals = SignalPipe([signal.SIGCHLD])
        self._selector = selectors.DefaultSelector()

    def serve(self, module: str, preload: Sequence[str]) -> None:
        """Warm up, and do what the host says until it is gone."""
        state = self._warm_up(module, preload)
        still()
        state["threads"] = other_threads()
        gc.collect()
        gc.freeze()  # children never look through what they inherit, and so do not copy it
        self._tell(state)
        self._selector.register(self._host, selectors.EVENT_READ)
        self._selector.register(self._signals, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._signals:
                    self._signals.drain()
                    self._reap()
                elif not self._listen():
                    return self._end()

    def _warm_up(self, module: str, preload: Sequence[str]) -> Message:
        import pipelines.warm_runs.child  # noqa: F401 - what an errand needs is there even where our code is broken

        try:
            _load(module)
        except BaseException as error:  # noqa: BLE001 - code that is being edited may raise anything, SystemExit too
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else f"{where[0]}:{where[1]}"
            return {"tell": "broken", "why": f"{module} does not import: {type(error).__name__}: {error} ({place})"}
        for name in (*preload, *self._rehearse()):
            with suppress(Exception):  # the run that needs it says so
                importlib.import_module(name)
        return {"tell": "ready"}

    def _rehearse(self) -> list[str]:
        """Let a child open the instance and run a job, and return what it had to import: next time that is there."""
        still()
        ours, childs = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._let_go()
                os.close(ours)
                for stream in (sys.stdout, sys.stderr):  # nobody wants to read of a run of nothing
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                from pipelines.warm_runs.rehearsal import imported_by_a_run

                os.write(childs, json.dumps(imported_by_a_run()).encode())
            finally:
                os._exit(0)
        os.close(childs)
        with os.fdopen(ours, "rb") as told:
            in_time, _, _ = select([told], [], [], _REHEARSAL_SECONDS)
            names = told.read() if in_time else b""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return json.loads(names) if names else []

    def _listen(self) -> bool:
        """Take what the host says; return False when it is gone."""
        try:
            piece = self._host.recv(65536)
        except ConnectionError:
            return False
        for message in self._lines.feed(piece):
            if message["do"] == "fork":
                self._fork(message)
            else:
                self._signal(message["run_id"], signal.Signals(message["signal"]))
        return bool(piece)

    def _fork(self, task: Message) -> None:
        told = {"task": task["task"], "run_id": task["run_id"]}
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDED_BY)  # until the child has its own handlers
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDED_BY)
            self._tell({"tell": "not_forked", "why": str(error), **told})
            return
        if pid == 0:
            self._be_child(task)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDED_BY)
        self._children[pid] = task
        self._tell({"tell": "forked", "pid": pid, **told})

    def _be_child(self, task: Message) -> NoReturn:
        """Do a task in the fresh child, and end without running anything of the zygote's."""
        status = 1
        try:
            self._let_go()
            from pipelines.warm_runs.child import work

            work(task, self._cards, self._lifeline)
            status = 0
        except BaseException:  # noqa: BLE001 - nothing may come back into the zygote's loop
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _let_go(self) -> None:
        """Close what belongs to the zygote; the lifeline's other end must be open nowhere but there."""
        self._signals.close_after_fork()
        self._selector.close()
        os.close(self._host.detach())
        os.close(self._held)

    def _signal(self, run_id: str, number: signal.Signals) -> None:
        """Signal a run's process, which cannot have been replaced by another one: nobody has reaped it yet."""
        for pid, task in self._children.items():
            if (task["task"], task["run_id"]) == ("run", run_id):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                if number is signal.SIGKILL:  # what it started goes with it
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, number)

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                task = self._children.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                self._tell({"tell": "ended", "task": task["task"], "run_id": task["run_id"], "code": code})

    def _tell(self, message: Message) -> None:
        with suppress(OSError):  # the host is gone; the next look at its socket says so
            self._host.sendall(line(message))

    def _end(self) -> None:
        """End the children: asked to at first, for certain after a while."""
        for number, seconds in ((signal.SIGTERM, self._grace), (signal.SIGKILL, 5.0)):
            for task in list(self._children.values()):
                self._signal(task["run_id"], number)
            until = monotonic() + seconds
            while self._children and monotonic() < until:
                select([self._signals], [], [], 0.2)
                self._signals.drain()
                self._reap()


def _load(module: str) -> None:
    """Import the definitions and resolve their jobs, which runs then find resolved."""
    from dagster._core.definitions.reconstruct import repository_def_from_target_def
    from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module

    for target in loadable_targets_from_python_module(module, working_directory=None):
        if repository := repository_def_from_target_def(target.target_definition):
            repository.get_all_jobs()


if __name__ == "__main__":
    main()
