"""Where the machine has no room for another process, the host lives on and takes runs again when there is."""

import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.warm_runs.config import WarmRunsConfig
from pipelines.warm_runs.nursery import Nursery


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture
def nursery(tmp_path: Path, selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    nursery = Nursery(WarmRunsConfig(module="light"), tmp_path, selector, lambda zygote, message: None, 0.0)
    yield nursery
    nursery.close()


def hear(selector: selectors.BaseSelector, nursery: Nursery, until: Callable[[], object]) -> None:
    """Attend to what zygotes say until something is so."""
    for _ in range(600):
        if until():
            return
        for key, _ in selector.select(0.1):
            key.data()
        nursery.look_after(lambda zygote: False)
    raise AssertionError("it never came to that")


def test_a_zygote_that_cannot_be_replaced_ends_no_host(
    nursery: Nursery, selector: selectors.BaseSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(selector, nursery, nursery.ready)
    first = nursery.current.pid
    with monkeypatch.context() as short:
        short.setattr(sys, "executable", "/nowhere/python")  # no process can be started
        os.kill(first, signal.SIGKILL)
        hear(selector, nursery, lambda: nursery.refusal)
        assert "no zygote can be started: No such file" in nursery.refusal
        assert nursery.ready() is None
    hear(selector, nursery, nursery.ready)
    assert nursery.refusal == ""
    assert nursery.current.pid != first
