"""No adapter can turn a time-out into a refusal (ADR 0003): shown from the text of every adapter.

The functions reachable from `purchase` are followed by name through the adapter's modules. Once something may have been
sent, an `except` may not make a refusal; only `base.send_once` may, and only for what httpx says was never sent.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from resources.providers import base
from resources.providers.registry import FACTORIES
from tests.resources.providers.test_adapter_rules import FOLDER, calls, names_in

REFUSALS = ("Rejected", "not_bought")
SENDS = "send_once"
Functions = Mapping[str, list[ast.FunctionDef]]


def defined_in(paths: list[Path]) -> Functions:
    found: dict[str, list[ast.FunctionDef]] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, []).append(node)
    return found


@cache
def functions_of(slug: str) -> Functions:
    return defined_in([path for path in FOLDER.glob("*.py") if path.stem == slug or path.stem.startswith(f"{slug}_")])


def called(node: ast.AST, functions: Functions) -> Iterator[tuple[str, int]]:
    """Yield the adapter's own functions that a piece of text calls (or names, as a callback), with their lines."""
    for inner in ast.walk(node):
        name = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "id", "")
        if name in functions or name == SENDS:
            yield name, inner.lineno  # type: ignore[attr-defined]  # names and attributes have lines


def closure(names: set[str], functions: Functions) -> set[str]:
    """Return these functions and all they reach."""
    reached: set[str] = set()
    while names:
        name = names.pop()
        if name in reached:
            continue
        reached.add(name)
        names |= {other for node in functions.get(name, []) for other, _ in called(node, functions)} - reached
    return reached


def sends(node: ast.AST, functions: Functions) -> bool:
    return SENDS in closure({name for name, _ in called(node, functions)}, functions)


def after_sending(reachable: set[str], functions: Functions) -> set[str]:
    """Return the functions that are called below a line that sends: by then the purchase may have arrived."""
    later: set[str] = set()
    for name in reachable:
        for node in functions.get(name, []):
            lines = [line for other, line in called(node, functions) if SENDS in closure({other}, functions)]
            later |= {other for other, line in called(node, functions) if lines and line > min(lines)}
    # What sends is judged where it sends; only what merely reads runs after a sending and nothing else.
    return closure({name for name in later if SENDS not in closure({name}, functions)}, functions)


def refusals_in_handlers(node: ast.FunctionDef) -> Iterator[tuple[ast.Try, ast.ExceptHandler]]:
    for attempt in (inner for inner in ast.walk(node) if isinstance(inner, ast.Try)):
        for handler in attempt.handlers:
            if any(calls(handler, name) for name in REFUSALS):
                yield attempt, handler


@pytest.mark.parametrize("slug", FACTORIES)
def test_a_purchase_is_followed_to_where_it_is_sent(slug: str) -> None:
    functions = functions_of(slug)
    reachable = closure({"purchase"}, functions)
    assert SENDS in reachable
    assert len(reachable) > 5


@pytest.mark.parametrize("slug", FACTORIES)
def test_no_error_of_a_sending_becomes_a_refusal(slug: str) -> None:
    assert not guilty(functions_of(slug))


def guilty(functions: Functions) -> list[str]:
    """Return where an `except` around or below the sending of a purchase makes a refusal."""
    found: list[str] = []
    reachable = closure({"purchase"}, functions)
    for name in reachable:
        for node in functions.get(name, []):
            lines = [line for other, line in called(node, functions) if SENDS in closure({other}, functions)]
            for attempt, handler in refusals_in_handlers(node):
                if any(sends(step, functions) for step in attempt.body):
                    found.append(f"{name}, line {handler.lineno}: refuses what was sent")
                if lines and handler.lineno > min(lines):
                    found.append(f"{name}, line {handler.lineno}: refuses after the sending")
    return found


@pytest.mark.parametrize("slug", FACTORIES)
def test_nothing_that_runs_after_the_sending_refuses_because_of_an_error(slug: str) -> None:
    functions = functions_of(slug)
    later = after_sending(closure({"purchase"}, functions), functions)
    for name in later:
        for node in functions.get(name, []):
            assert not list(refusals_in_handlers(node)), f"{slug}.{name} refuses because of an error after the sending"


@pytest.mark.parametrize("slug", FACTORIES)
def test_every_except_names_what_it_catches(slug: str) -> None:
    functions = functions_of(slug)
    for name in closure({"purchase"}, functions):
        for node in functions.get(name, []):
            for handler in (inner for inner in ast.walk(node) if isinstance(inner, ast.ExceptHandler)):
                caught = names_in(handler.type) if handler.type else {"BaseException"}
                assert not caught & {"BaseException", "Exception"}, f"{slug}.{name} catches everything"


def test_one_table_decides_what_was_never_sent() -> None:
    (sending,) = defined_in([FOLDER / "base.py"])[SENDS]
    refusing = list(refusals_in_handlers(sending))
    assert [ast.unparse(handler.type) for _, handler in refusing if handler.type] == ["_NEVER_SENT"]
    told = {error.__name__ for error in base._NEVER_SENT}
    assert told == {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"}


BAD = {
    "an error of the sending": "try:\n            return self._send()\n"
    "        except TimeoutError:\n            return Rejected(1)",
    "an error of a read after it": "answer = self._send()\n        try:\n            return self._read()\n"
    "        except ValueError as error:\n            return not_bought(error)",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_the_rule_sees_a_bad_adapter(body: str, tmp_path: Path) -> None:
    text = (
        f"class Bad:\n    def purchase(self):\n        {body}\n"
        "    def _send(self):\n        return self._http.send_once()\n    def _read(self):\n        return 1\n"
    )
    (tmp_path / "bad.py").write_text(text)
    assert guilty(defined_in([tmp_path / "bad.py"]))
