"""The operator's guide: every alert the code can raise has its section, and every command in it can be typed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.typed import parse

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "operations.md"
FOLDERS = ("api", "assets", "cli", "esim", "pipelines", "resources")
TREES = {
    path.relative_to(ROOT): ast.parse(path.read_text()) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")
}
TOPICS = (
    "run failed",
    "provider circuit open",
    "low balance",
    "low stock",
    "catalogue held",
    "stuck order",
    "refund failed",
    "dispute",
    "second payment",
    "late purchase",
    "mail refused",
)
GUIDED = GUIDE.read_text()
COMMANDS = re.findall(r"`(numnaroad [^`]+)`", GUIDED) + re.findall(r"^(numnaroad .+)$", GUIDED, re.MULTILINE)


QUEUES = frozenset({"enqueue", "enqueue_many", "Notice"})


def test_every_alert_has_its_section() -> None:
    headings = [line for line in GUIDED.splitlines() if line.startswith("#")]
    named = {kind for heading in headings for kind in re.findall(r"`([a-z_]+)`", heading)}
    assert {kind: where for kind, where in alert_kinds().items() if kind not in named} == {}


def test_alerts_are_found_in_the_code() -> None:
    assert {"attention", "dispute", "second_payment", "circuit_open", "mail_refused"} <= set(alert_kinds())


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_its_section(topic: str) -> None:
    headings = [line.lower() for line in GUIDED.splitlines() if line.startswith("#")]
    assert any(topic in heading for heading in headings)


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_every_command_can_be_typed(line: str) -> None:
    parse(line)


def alert_kinds() -> dict[str, str]:
    """Return every kind of notice the code queues, with where; the kind is `enqueue`'s argument, however it gets there.

    A function that hands its own parameter `kind` on is followed to its callers.
    """
    everywhere = {name: position for tree in TREES.values() for name, position in _forwarders(tree).items()}
    public: dict[str, int | None] = {name: at for name, at in everywhere.items() if not name.startswith("_")}
    kinds = {}
    for path, tree in TREES.items():
        constants, known = _constants(tree), public | {"enqueue": None, "Notice": 2} | _forwarders(tree)
        for call, name in _calls(tree):
            if name not in known:
                continue
            value = _argument(call, known[name])
            if isinstance(value, ast.Constant):
                kinds[str(value.value)] = str(path)
            elif isinstance(value, ast.Attribute) and value.attr.isupper():  # a member of an enumeration
                kinds[value.attr.lower()] = str(path)
            elif isinstance(value, ast.Name) and value.id in constants:
                kinds[constants[value.id]] = str(path)
            else:
                named = ast.unparse(value) if value is not None else "nothing"
                assert named == "kind", f"{path}:{call.lineno} names its kind by {named}; use a word"
    return kinds


def _forwarders(tree: ast.Module) -> dict[str, int]:
    """Return a module's functions that hand their parameter `kind` on to a queue of notices, with its position."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(name in QUEUES or "tell" in name for _, name in _calls(node)):
            names = [each.arg for each in node.args.args]
            if "kind" in names:
                found[node.name] = names.index("kind")
    return found


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            yield node, name


def _argument(call: ast.Call, position: int | None) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == "kind":
            return keyword.value
    return call.args[position] if position is not None and len(call.args) > position else None


def _constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: str(node.value.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
