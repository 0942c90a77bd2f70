"""The host's side of a zygote: started with fresh code, spoken to over a socket pair, ended by hanging up."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Literal

from pipelines.warm_runs.code_watch import Code
from pipelines.warm_runs.config import WarmRunsConfig
from pipelines.warm_runs.native_threads import QUIET
from pipelines.warm_runs.wire import Lines, Message, line

State = Literal["warming", "ready", "broken", "gone"]


class ZygoteProcess:
    """One zygote, the code it was started with, and what it says of itself."""

    def __init__(self, config: WarmRunsConfig, place: Path, code: Code) -> None:
        ours, its = socket.socketpair()
        given = asdict(config) | {"fd": its.fileno(), "place": str(place), "grace": config.shutdown_grace_seconds}
        self._process = subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
            [sys.executable, "-m", "pipelines.warm_runs.zygote", json.dumps(given)],
            pass_fds=[its.fileno()],
            env={**os.environ, **QUIET},
            stdin=subprocess.DEVNULL,
        )
        its.close()
        ours.setblocking(False)
        self._socket, self._lines = ours, Lines()
        self.code, self.born = code, monotonic()
        self.state: State = "warming"
        self.why = ""

    def fileno(self) -> int:
        """Return what a selector registers."""
        return self._socket.fileno()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Tell it to do something; one that does not take it is dead or hangs, and is ended."""
        try:
            self._socket.sendall(line(message))
        except OSError:
            self._process.kill()

    def receive(self) -> list[Message] | None:
        """Return what it says; None when it has hung up."""
        try:
            piece = self._socket.recv(65536)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        return self._lines.feed(piece) if piece else None

    def kill(self) -> None:
        """End it at once; its children hear of it and end by themselves."""
        self._process.kill()

    def hang_up(self) -> None:
        """Let it end its children, if it has any, and itself."""
        self._socket.close()

    def ended(self) -> int | None:
        """Return its exit code; None while it lives."""
        return self._process.poll()
