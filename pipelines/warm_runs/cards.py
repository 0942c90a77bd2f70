"""A card for every run that was taken: on the table until the run is accounted for, held by the process that runs it.

The host lays a card when it takes a run; the process that runs it holds a lock on it, which the kernel gives up with
that process, and tears it up when the run has ended in Dagster's eyes. So a card that nobody holds is a run somebody
must account for, and whether a run goes on can be told even when the host is gone.
"""

import fcntl
import json
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

_RUN_ID = re.compile(r"[0-9A-Za-z_-]{1,100}")


class Cards:
    """The cards in one folder."""

    def __init__(self, place: Path) -> None:
        self._folder = place / "runs"

    def lay(self, run_id: str, instance_ref: str) -> bool:
        """Lay a run's card; return False where it lies there already.

        Raises:
            ValueError: this is no run id.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(self._path(run_id), flags, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as card:
            card.write(json.dumps({"instance_ref": instance_ref}) + "\n")
        return True

    def hold(self, run_id: str) -> None:
        """Hold the card for as long as this process lives, with our process id on it."""
        descriptor = os.open(self._path(run_id), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, (json.dumps({"pid": os.getpid()}) + "\n").encode())

    def is_held(self, run_id: str) -> bool:
        """Return whether a living process runs it."""
        try:
            descriptor = os.open(self._path(run_id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def lies(self, run_id: str) -> bool:
        """Return whether the run is still to be accounted for."""
        return self._path(run_id).exists()

    def read(self, run_id: str) -> dict[str, Any]:
        """Return what is written on a card; nothing where it is gone."""
        try:
            lines = self._path(run_id).read_text().splitlines()
            return {name: value for each in lines for name, value in json.loads(each).items()}
        except (OSError, ValueError):  # gone, or its writer ended while writing
            return {}

    def tear_up(self, run_id: str) -> None:
        """Take the card away: the run is accounted for."""
        self._path(run_id).unlink(missing_ok=True)

    def all(self) -> list[str]:
        """Return the ids of all runs that are to be accounted for, oldest first."""
        with suppress(FileNotFoundError):
            cards = sorted(self._folder.iterdir(), key=lambda card: card.stat().st_mtime)
            return [card.name for card in cards if _RUN_ID.fullmatch(card.name)]
        return []

    def signal(self, run_id: str, number: signal.Signals) -> bool:
        """Signal the process that holds a card; return whether there was one."""
        pid = self.read(run_id).get("pid")
        if not isinstance(pid, int) or not self.is_held(run_id):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def _path(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is no run id")
        return self._folder / run_id
