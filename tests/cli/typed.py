"""Commands as documents and suggestions quote them: parsed to the last option, never run."""

import shlex
from typing import Any

import typer

from cli.app import app


def parse(line: str) -> str:
    """Parse a `numnaroad …` line and return the name of its command.

    Raises:
        LookupError: there is no such command.
        ValueError: it does not take these options, or wants more of them.
    """
    words = shlex.split(line)[1:]
    node: Any = typer.main.get_command(app)
    names = []
    while commands := getattr(node, "commands", None):
        name = words.pop(0) if words else ""
        if name not in commands:
            raise LookupError(f"{line!r}: there is no command {name!r}; there are {', '.join(sorted(commands))}")
        node = commands[name]
        names.append(name)
    if words != ["--help"]:
        try:
            node.make_context(line, words)
        except Exception as error:
            raise ValueError(f"{line!r}: {error}") from error
    return " ".join(names)
