"""Rules that hold for the text of every adapter: read from its syntax tree, so that no later edit can forget them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from esim.ports import Capabilities
from resources.providers.registry import FACTORIES
from resources.settings import PROVIDERS

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "resources" / "providers"
SHARED = {"__init__", "base", "outcomes", "paging", "payload", "registry"}
ADAPTER_MODULES = sorted(path for path in FOLDER.glob("*.py") if path.stem not in SHARED)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def calls(node: ast.AST, name: str) -> list[ast.Call]:
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and (call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")) == name
    ]


def test_every_provider_has_an_adapter_a_page_and_tests() -> None:
    assert list(FACTORIES) == list(PROVIDERS)
    for slug in FACTORIES:
        assert (FOLDER / f"{slug}.py").is_file()
        assert (ROOT / "docs" / "providers" / f"{slug}.md").is_file()
        assert (Path(__file__).parent / f"test_{slug}_provider.py").is_file()


def test_every_adapter_module_belongs_to_one_provider() -> None:
    for path in ADAPTER_MODULES:
        assert [slug for slug in FACTORIES if path.stem == slug or path.stem.startswith(f"{slug}_")]


@pytest.mark.parametrize("path", ADAPTER_MODULES, ids=lambda path: path.stem)
def test_no_adapter_judges_a_transport_error_itself(path: Path) -> None:
    """Only `base` knows which httpx errors mean "never sent": an adapter that catches one could make it a refusal."""
    for function in functions(path):
        for handler in (node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)):
            caught = names_in(handler.type) if handler.type else {"everything"}
            guilty = {name for name in caught if name.endswith("Timeout") or name in {"httpx", "TimeoutException"}}
            guilty |= caught & {"everything", "Exception", "BaseException", "HTTPError", "TransportError", "OSError"}
            assert not guilty, f"{path.stem}.{function.name} catches {guilty}"


@pytest.mark.parametrize("path", ADAPTER_MODULES, ids=lambda path: path.stem)
def test_no_error_alone_becomes_a_refusal_where_something_was_sent(path: Path) -> None:
    """Where a purchase is sent or looked up, an except clause may refuse only for a further reason (a 401, say)."""
    for function in functions(path):
        if function.name not in {"resolve", "order_status"} and not calls(function, "send_once"):
            continue
        for handler in (node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)):
            reasoned = {call for node in ast.walk(handler) if isinstance(node, ast.If) for call in ast.walk(node)}
            bare = [c for name in ("Rejected", "not_bought") for c in calls(handler, name) if c not in reasoned]
            assert not bare, f"{path.stem}.{function.name} makes an error a refusal"


@pytest.mark.parametrize("path", ADAPTER_MODULES, ids=lambda path: path.stem)
def test_every_outcome_of_a_sending_is_handled(path: Path) -> None:
    """What `send_once` returns is either passed on whole or asked what it is before anything is read from it."""
    for function in functions(path):
        for call in calls(function, "send_once"):
            passed_on = any(
                isinstance(node, ast.Return) and node.value is not None and call in ast.walk(node.value)
                for node in ast.walk(function)
            )
            asked = [c for c in calls(function, "isinstance") if {"Rejected", "Unknown", "Reply"} & names_in(c)]
            matched = any(isinstance(node, ast.Match) for node in ast.walk(function))
            assert passed_on or asked or matched, f"{path.stem}.{function.name} ignores an outcome"


@pytest.mark.parametrize("path", ADAPTER_MODULES, ids=lambda path: path.stem)
def test_purchases_are_never_retried(path: Path) -> None:
    assert "stamina" not in path.read_text()
    for function in functions(path):
        loops = [node for node in ast.walk(function) if isinstance(node, ast.For | ast.While)]
        assert not [loop for loop in loops if calls(loop, "send_once")], f"{path.stem}.{function.name} sends in a loop"


@pytest.mark.parametrize("path", ADAPTER_MODULES, ids=lambda path: path.stem)
def test_no_adapter_uses_floats_or_prints(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not calls(tree, "float")
    assert not calls(tree, "print")


def matrix() -> dict[str, dict[str, str]]:
    """The capability table of docs/providers/README.md: row -> provider -> cell."""
    text = (ROOT / "docs" / "providers" / "README.md").read_text()
    rows = [
        [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| (`|Capability)", line)
    ]
    slugs = [slug for slug in rows[0][1:]]
    return {row[0]: dict(zip(slugs, row[1:], strict=True)) for row in rows[1:]}


def told(able: Capabilities, name: str) -> str:
    value = getattr(able, name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "rate_limits":
        return (
            ", ".join(f"{limit.name.replace('*', 'all')} {limit.calls}/{limit.per_seconds:g}s" for limit in value)
            or "none"
        )
    return f"{value:g} s" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("slug", FACTORIES)
def test_the_capability_matrix_is_what_the_adapters_declare(slug: str) -> None:
    able: Capabilities = FACTORIES[slug].capabilities  # type: ignore[attr-defined]  # a class, as every adapter is
    table = matrix()
    assert set(table) == {field.name for field in fields(Capabilities)}
    assert {name: row[slug] for name, row in table.items()} == {name: told(able, name) for name in table}
