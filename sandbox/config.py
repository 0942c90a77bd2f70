"""Settings of the sandbox, read once from the environment.

Every variable starts with ``SANDBOX_``; an unreadable value ends the start with a message that names the variable.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path


class BadSettingError(ValueError):
    """A SANDBOX_ variable holds something that cannot be used."""


@dataclass(frozen=True)
class SandboxConfig:
    """What one sandbox process is told from outside; the defaults serve development and tests."""

    seed: int = 1
    host: str = "127.0.0.1"
    port: int = 8100
    base_url: str = ""
    api_url: str = "http://127.0.0.1:8000"
    catalogues: Path | None = None
    plans_per_provider: int | None = None
    latency_ms: int = 0
    async_seconds: float = 1.5
    hold_seconds: float = 1200
    rate_limits: bool = True
    smtp_port: int = 8125
    balance: Decimal = Decimal(1_000_000)
    state: Path | None = None

    def __post_init__(self) -> None:
        """Fill in the public address where none was given."""
        if not self.base_url:
            object.__setattr__(self, "base_url", f"http://{self.host}:{self.port}")


def _whole(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise BadSettingError(f"{name}={text!r} is not a whole number") from None
    if value < 0:
        raise BadSettingError(f"{name}={text!r} must not be negative")
    return value


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadSettingError(f"{name}={text!r} is not a number of seconds") from None
    if not 0 <= value < 86_400:
        raise BadSettingError(f"{name}={text!r} must lie between 0 and a day")
    return value


def _money(name: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise BadSettingError(f"{name}={text!r} is not an amount of money") from None
    if not value.is_finite():
        raise BadSettingError(f"{name}={text!r} is not an amount of money")
    return value


def _switch(name: str, text: str) -> bool:
    if text not in {"0", "1"}:
        raise BadSettingError(f"{name}={text!r} must be 0 or 1")
    return text == "1"


def _folder(name: str, text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise BadSettingError(f"{name}={text!r} is not a folder; it must hold <provider>/*.json pages")
    return folder


def _path(_name: str, text: str) -> Path:
    return Path(text)


def _text(_name: str, text: str) -> str:
    return text.rstrip("/")


_READERS: dict[str, Callable[[str, str], object]] = {
    "seed": _whole,
    "host": _text,
    "port": _whole,
    "base_url": _text,
    "api_url": _text,
    "catalogues": _folder,
    "plans_per_provider": _whole,
    "latency_ms": _whole,
    "async_seconds": _seconds,
    "hold_seconds": _seconds,
    "rate_limits": _switch,
    "smtp_port": _whole,
    "balance": _money,
    "state": _path,
}


def read_config(environ: Mapping[str, str] | None = None) -> SandboxConfig:
    """Read the configuration from the environment (empty means unset); BadSettingError names a bad one."""
    source = os.environ if environ is None else environ
    values: dict[str, object] = {}
    for field, reader in _READERS.items():
        name = f"SANDBOX_{field.upper()}"
        text = source.get(name, "").strip()
        if text:
            values[field] = reader(name, text)
    return SandboxConfig(**values)  # type: ignore[arg-type]  # each reader returns its field's type
