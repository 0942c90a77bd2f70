"""What the warm run launcher is told in `dagster.yaml`, read alike by the launcher and by its host.

The host reads the file itself, because a light process must not import Dagster to learn what to serve.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

LAUNCHER = ("pipelines.warm_runs.launcher", "WarmRunLauncher")
_LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes on Linux and 103 on macOS


class NoFolder(Exception):
    """The folder of the host's socket is not there, or is not ours alone."""


@dataclass(frozen=True, slots=True)
class WarmRunsConfig:
    """Which code location the host serves, how many runs at a time, and how long it waits for what it ends.

    Every `look_seconds` a run's process asks whether Dagster has given the run up, and then ends. `watch` names folders
    (from where the host is started) whose changes make it start over with fresh code; `preload` names modules that runs
    import only when they need them; `folder` overrules where the socket is.
    """

    module: str = "pipelines.definitions"
    location: str = "numnaroad"
    max_concurrent: int = 8
    terminate_grace_seconds: int = 60
    shutdown_grace_seconds: int = 6
    look_seconds: int = 15
    watch: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    folder: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "WarmRunsConfig":
        """Return the configuration for the launcher's part of `dagster.yaml`; `{env: NAME}` is looked up."""
        defaults = asdict(cls())
        given = {name: type(defaults[name])(_plain(config[name])) for name in defaults.keys() & config.keys()}
        return cls(**given)

    def place(self, home: str) -> Path:
        """Return the folder of the socket and the cards for a DAGSTER_HOME, which itself may be too long a path."""
        if self.folder:
            return Path(self.folder).absolute()
        name = f"numnaroad-{os.getuid()}-{sha256(os.path.realpath(home).encode()).hexdigest()[:12]}"
        place = Path(tempfile.gettempdir()) / name
        if len(os.fsencode(place / "host.sock")) > _LONGEST_SOCKET_PATH:
            place = Path(os.sep, "tmp") / name
        return place


def configured(home: Path) -> WarmRunsConfig | None:
    """Return what `dagster.yaml` in this DAGSTER_HOME says; None where it names another launcher."""
    content = yaml.safe_load((home / "dagster.yaml").read_text()) or {}
    launcher = content.get("run_launcher") or {}
    if (launcher.get("module"), launcher.get("class")) != LAUNCHER:
        return None
    return WarmRunsConfig.of(launcher.get("config") or {})


def open_place(place: Path) -> Path:
    """Return a folder that exists, is ours and shut to everybody else.

    Raises:
        NoFolder: it is not there, belongs to somebody else, or others may enter it.
    """
    try:
        status = os.lstat(place)
    except OSError as error:
        raise NoFolder(f"{place} cannot be opened: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise NoFolder(f"{place} must be a folder of user {os.getuid()} with mode 0700; remove it or set `folder`")
    return place


def make_place(place: Path) -> Path:
    """Create the folder where it is missing, and return it as `open_place` does.

    Raises:
        NoFolder: it cannot be made, or is not ours alone.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NoFolder(f"{place} cannot be made: {error.strerror}") from error
    return open_place(place)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"env"}:
        return os.environ.get(value["env"], "")
    return value
