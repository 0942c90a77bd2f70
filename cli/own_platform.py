"""A whole platform in a folder of its own, on free ports: for the demo, benchmarks and the fault campaign.

Nothing of this machine's shop comes near: no setting, no key, no port. While such a platform is open, this process
works in its settings too.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from cli.ports import free_ports
from cli.run import prepare_environment, wait_for
from esim.errors import NumnaRoadError
from resources.settings import Settings, load_settings

PARTS = ("sandbox", "api", "code", "runs", "daemon")
_PORTS = ("API_PORT", "DAGSTER_PORT", "SANDBOX_PORT", "SANDBOX_SMTP_PORT", "CODE_SERVER_PORT")
_UP_WITHIN_SECONDS = 180


class PlatformDown(NumnaRoadError):
    """A part of the platform does not answer."""


@dataclass(frozen=True)
class OwnPlatform:
    """Where a platform is, its settings, and the environment its processes share; none of them runs yet."""

    folder: Path
    settings: Settings
    environment: Mapping[str, str]

    @property
    def logs(self) -> Path:
        """The folder of its processes' output."""
        return self.folder / "logs"

    def fill(self) -> None:
        """Wait until sandbox and API answer, and sync the catalogues once.

        Raises:
            PlatformDown: one of them does not.
        """
        from cli.catalogue import sync_with_progress

        for url in (f"{self.settings.sandbox_url}/healthz", f"{self.settings.api_url}/healthz"):
            if not wait_for(url, _UP_WITHIN_SECONDS):
                raise PlatformDown(f"nothing answers at {url}; see {self.logs}")
        sync_with_progress(self.settings, Console(quiet=True), providers=None)


@contextmanager
def own_platform(prefix: str, own: Mapping[str, str]) -> Iterator[OwnPlatform]:
    """Lay out a platform with settings of its own in a folder that is gone afterwards; its Postgres runs."""
    from resources.db.embedded import leave_embedded

    folder, before = Path(tempfile.mkdtemp(prefix=prefix)), dict(os.environ)
    try:
        environment = isolated_environment(folder, own)
        _work_in(environment)
        settings = load_settings()
        yield OwnPlatform(folder, settings, prepare_environment(settings))
    finally:
        _end_leftovers(str(folder))
        _work_in(before)
        leave_embedded(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def isolated_environment(folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that names nothing of this machine's shop: own folder, own ports, no keys."""
    names = {name.upper() for name in Settings.model_fields}
    # Recorded catalogues are the one thing such a platform may be given: it then runs on real data.
    foreign = {name for name in os.environ if name in names or name.startswith("SANDBOX_")} - {"SANDBOX_CATALOGUES"}
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    blanks = dict.fromkeys(names, "")  # an empty value also wins over a line in .env
    ports = dict(zip(_PORTS, map(str, free_ports(len(_PORTS))), strict=True))
    return {**kept, **blanks, **ports, "DATA_DIR": str(folder / "data"), **own}


def _end_leftovers(folder: str) -> None:
    """Kill what a killed part or run left behind: every process whose DAGSTER_HOME is in the folder that goes now."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DAGSTER_HOME", "").startswith(f"{folder}{os.sep}"):
                process.kill()


def _work_in(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    load_settings.cache_clear()
