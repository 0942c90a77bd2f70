"""Commands as documents and suggestions quote them: parsed to the last option, never run."""

import shlex
from collections.abc import Mapping
from typing import Any

import typer

from cli.app import app


def parse(line: str) -> str:
    """Parse a `numnaroad …` line and return the name of its command.

    Raises:
        LookupError: there is no such command.
        ValueError: it does not take these options, or wants more of them.
    """
    return parsed(line)[0]


def parsed(line: str) -> tuple[str, Mapping[str, Any]]:
    """Parse a line as `parse` does; return its command's name and what its options and arguments are then."""
    words = shlex.split(line)[1:]
    node: Any = typer.main.get_command(app)
    names = []
    while commands := getattr(node, "commands", None):
        name = words.pop(0) if words else ""
        if name not in commands:
            raise LookupError(f"{line!r}: there is no command {name!r}; there are {', '.join(sorted(commands))}")
        node = commands[name]
        names.append(name)
    values: Mapping[str, Any] = {}
    if words != ["--help"]:
        try:
            values = node.make_context(line, words).params
        except Exception as error:
            raise ValueError(f"{line!r}: {error}") from error
    return " ".join(names), values
