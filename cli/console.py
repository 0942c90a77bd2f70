"""The console commands print to: as wide as the terminal, and wide enough for whole tables where there is none."""

import sys

from rich.console import Console

_WIDTH_IN_FILES = 180


def make_console() -> Console:
    """Return the console of this command."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_IN_FILES)
