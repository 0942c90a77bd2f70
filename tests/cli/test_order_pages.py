"""How an order's pages look: which eSIM a purchase is of, references that can be copied, and histories one can read."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from cli.order_pages import once_each, print_rows

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WAITS = "another purchase is open where only one may be"


def printed(rows: list[dict[str, Any]], width: int, *, terminal: bool = True) -> str:
    out = StringIO()
    print_rows(Console(file=out, width=width, force_terminal=terminal, no_color=True), "Rows", rows)
    return out.getvalue()


def step(seconds: int, esim_n: int | None, before: str, after: str, reason: str) -> dict[str, Any]:
    at = AT + timedelta(seconds=seconds)
    return {"at": at, "esim_n": esim_n, "from_status": before, "to_status": after, "reason": reason, "actor": "engine"}


def waiting(n: int, start: int) -> list[dict[str, Any]]:
    pair = (step(start, n, "queued", "working", "claimed"), step(start + 1, n, "working", "queued", WAITS))
    return list(pair)


def shown(rows: list[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    return [(row["esim_n"], row["to_status"], row["times"]) for row in rows]


def test_a_reference_is_whole_on_one_line_in_a_pipe() -> None:
    reference, run = "nr-7d3f0c7a-2b64-4a63-9a3e-7f8f0e1c2d3b-1-1", "0c7b8a52-6f8e-4d8e-9a51-1d1f3a4b5c6d"
    row = {"n": 1, "number": 1, "provider": "esim_access", "provider_package_id": "JP_1_7_ABCDEFGH"}
    row |= {"error_type": "out_of_stock", "error": "the plan is sold out at the moment, try another one " * 4}
    row |= {"latency_ms": 1234, "reference": reference, "started_at": AT, "finished_at": AT, "run_id": run}
    text = printed([row], 180, terminal=False)
    assert reference in text
    assert run in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_cut_on_a_narrow_terminal(width: int) -> None:
    reference = "nr-7d3f0c7a-2b64-4a63-9a3e-7f8f0e1c2d3b-1-1"
    row = {"n": 1, "reference": reference, "run_id": reference[::-1], "reason": "why " * 20}
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed([row], width))
    assert "…" not in text
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    whole = ["".join(cell.strip() for cell in column) for column in zip(*lines, strict=True)]
    assert whole[:3] == ["1", reference, reference[::-1]]
    assert max(map(len, text.splitlines())) <= width


def test_a_wait_that_repeats_is_shown_once_with_how_often_and_until_when() -> None:
    rows = [step(0, 1, "unpaid", "queued", "paid")]
    for turn in range(5):
        rows += waiting(1, 10 + 4 * turn) + waiting(2, 12 + 4 * turn)
    rows.append(step(90, 1, "queued", "working", "claimed"))
    rows.append(step(91, 1, "working", "delivered", "bought"))
    folded = once_each(rows)
    assert shown(folded) == [
        (1, "queued", ""),
        (1, "working", "5 times"),
        (1, "queued", "5 times"),
        (2, "working", "5 times"),
        (2, "queued", "5 times"),
        (1, "working", ""),
        (1, "delivered", ""),
    ]
    assert folded[2]["until"] == AT + timedelta(seconds=27)


def test_a_history_without_repeats_is_shown_as_it_is() -> None:
    rows = [step(0, None, "pending", "paid", "paid"), *waiting(1, 5), step(9, None, "paid", "processing", "x")]
    assert [{name: row[name] for name in rows[0]} for row in once_each(rows)] == rows
    assert once_each([]) == []
