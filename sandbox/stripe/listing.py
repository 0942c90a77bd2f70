"""Lists the way Stripe pages them, and expansion of ids into objects."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sandbox.stripe.errors import StripeError
from sandbox.stripe.params import Params
from sandbox.stripe.session_objects import Json
from sandbox.stripe.state import StripeState

PAGING = ("limit", "starting_after", "ending_before", "expand")
COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}
EXPANDABLE = {
    "payment_intent",
    "latest_charge",
    "charge",
    "balance_transaction",
    "source",
}


def page(objects: Iterable[Json], params: Params, *, url: str, kind: str) -> Json:
    """One page, newest first as given; raises StripeError for a cursor that does not exist."""
    rows = list(objects)
    limit = params.integer("limit", least=1, most=100) or 10
    after, before = params.text("starting_after"), params.text("ending_before")
    if before is not None:
        rows = rows[: _index(rows, before, kind, "ending_before")]
        chosen, more = rows[-limit:], len(rows) > limit
    else:
        start = 0 if after is None else _index(rows, after, kind, "starting_after") + 1
        chosen, more = rows[start : start + limit], len(rows) > start + limit
    return {"object": "list", "data": [copy.deepcopy(row) for row in chosen], "has_more": more, "url": url}


def _index(rows: list[Json], object_id: str, kind: str, param: str) -> int:
    for index, row in enumerate(rows):
        if row["id"] == object_id:
            return index
    raise StripeError.missing(kind, object_id, param=param, status=400)


def created_filter(params: Params) -> Callable[[Json], bool]:
    """The `created` filter: an exact second, or bounds gt, gte, lt, lte."""
    if not params.has("created"):
        return lambda _row: True
    if isinstance(params.raw("created"), str):
        exact = params.integer("created", least=0, most=10**12)
        return lambda row: bool(row["created"] == exact)
    bounds = params.child("created").allow(COMPARISONS)
    wanted = [(test, bounds.integer(name, least=0, most=10**12)) for name, test in COMPARISONS.items()]
    return lambda row: all(bound is None or test(row["created"], bound) for test, bound in wanted)


def expand(state: StripeState, answer: Json, paths: list[str]) -> Json:
    """Replace ids by objects along each path; list answers take `data.` paths. Changes and returns `answer`."""
    for path in paths:
        _expand(state, answer, path.split("."), path)
    return answer


def _expand(state: StripeState, node: Any, steps: list[str], path: str) -> None:
    if not steps or node is None:
        return
    if isinstance(node, list):
        for entry in node:
            _expand(state, entry, steps, path)
        return
    step, rest = steps[0], steps[1:]
    if step == "data" and node.get("object") == "list":
        _expand(state, node["data"], rest, path)
        return
    node[step] = _expanded(state, node, step, path)
    _expand(state, node[step], rest, path)


def _expanded(state: StripeState, node: Json, step: str, path: str) -> Any:
    if step == "line_items" and node.get("object") == "checkout.session":
        return line_item_list(state, node["id"])
    if step == "refunds" and node.get("object") == "charge":
        rows = [copy.deepcopy(r) for r in reversed(state.refunds.values()) if r["charge"] == node["id"]]
        return {"object": "list", "data": rows, "has_more": False, "url": f"/v1/charges/{node['id']}/refunds"}
    if step not in EXPANDABLE or step not in node:
        raise StripeError.refused(f"This property cannot be expanded ({path}).", param="expand")
    value = node[step]
    return copy.deepcopy(state.table_of(value).get(value)) if isinstance(value, str) else value


def line_item_list(state: StripeState, session_id: str) -> Json:
    """The lines of a session, as the list that hangs below it."""
    rows = copy.deepcopy(state.line_items.get(session_id, []))
    return {"object": "list", "data": rows, "has_more": False, "url": f"/v1/checkout/sessions/{session_id}/line_items"}
