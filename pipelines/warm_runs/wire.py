"""How launcher, host and zygote talk: one JSON object a line over a Unix socket.

A run is handed over in two steps, because a run that was taken must never be launched a second time:

    launcher: launch    host: ready, or refused with the reason
    launcher: start     host: taken

After `launch` nothing has happened; whatever goes wrong then, the launcher may turn to the default launcher. From the
moment it begins to send `start` the host may have taken the run, so a lost answer no longer tells anything: the
launcher must then leave the run to the host, and to Dagster's run monitoring where the host is gone. The host takes a
run id once, however often it is told to.
"""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

Message = dict[str, Any]
_MOST_BYTES = 1_000_000
ANSWER_SECONDS = 1.5


class HostAway(Exception):
    """Nobody answers at the socket."""


class Lines:
    """Puts messages together from the pieces a socket hands over."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Message]:
        """Return the messages that are complete now.

        Raises:
            ValueError: what came is no message of ours.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _MOST_BYTES:
            raise ValueError("a message is too long")
        messages = [json.loads(line) for line in lines]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("a message is no object")
        return messages


def line(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Conversation:
    """A launcher's side of one connection to the host."""

    def __init__(self, place: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lines = Lines()
        self._place = place

    def __enter__(self) -> "Conversation":
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            self._socket.connect(str(self._place / "host.sock"))
        except OSError as error:
            self._socket.close()
            raise HostAway(f"nobody listens at {self._place / 'host.sock'} ({error.strerror or error})") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, message: Mapping[str, Any]) -> Message:
        """Send a message and return the answer.

        Raises:
            HostAway: there was none in time; whether the message arrived is not known.
        """
        try:
            self._socket.sendall(line(message))
            while piece := self._socket.recv(65536):
                for answer in self._lines.feed(piece):
                    return answer
        except (OSError, ValueError) as error:
            raise HostAway(f"the host did not answer `{message['do']}` ({error})") from error
        raise HostAway(f"the host hung up on `{message['do']}`")
