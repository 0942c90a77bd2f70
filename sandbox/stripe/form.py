"""Stripe's form encoding: `a[b][0][c]=x` bodies and queries into nested dicts and lists, values left as strings."""

from typing import Any
from urllib.parse import parse_qsl

from sandbox.stripe.errors import StripeError

MAX_DEPTH = 10
MAX_PAIRS = 2000


def decode(encoded: str) -> dict[str, Any]:
    """Decode one urlencoded string; raises StripeError when it is malformed or nested beyond reason."""
    pairs = parse_qsl(encoded, keep_blank_values=True)
    if len(pairs) > MAX_PAIRS:
        raise StripeError.invalid("Too many parameters were sent.")
    tree: dict[str, Any] = {}
    for key, value in pairs:
        _put(tree, _path(key), value)
    folded = _fold(tree)
    return folded if isinstance(folded, dict) else {}


def _path(key: str) -> list[str]:
    head, _, tail = key.partition("[")
    if not tail:
        return [head]
    if not tail.endswith("]"):
        raise StripeError.invalid(f"Invalid parameter name: {key}", param=key)
    path = [head, *tail[:-1].split("][")]
    if len(path) > MAX_DEPTH:
        raise StripeError.invalid(f"Parameter nested too deeply: {key}", param=key)
    return path


def _put(tree: dict[str, Any], path: list[str], value: str) -> None:
    node = tree
    for step in path[:-1]:
        name = step or str(len(node))
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise StripeError.invalid("Invalid object", param=path[0])
        node = child
    node[path[-1] or str(len(node))] = value


def _fold(node: Any) -> Any:
    """Turn every dict whose keys are 0..n-1 into a list, the way the service reads indexed parameters."""
    if not isinstance(node, dict):
        return node
    folded = {key: _fold(value) for key, value in node.items()}
    if folded and all(key.isdigit() for key in folded) and sorted(map(int, folded)) == list(range(len(folded))):
        return [folded[str(index)] for index in range(len(folded))]
    return folded
