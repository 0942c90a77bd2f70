"""What breaks, breaks for a moment: fresh orders are delivered again within a minute, with nobody's help."""

from collections.abc import Iterator

import pytest

from chaos.recovery import SCENARIOS, recover
from chaos.stage import Stage, open_stage
from tests.ports import free_port


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage((free_port(), free_port(), free_port())) as stage:
        yield stage


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_work_resumes_by_itself(stage: Stage, scenario: str) -> None:
    recovered = recover(stage, scenario, patient=False)
    assert recovered.seconds is not None, "no fresh order was delivered within a minute"
    assert recovered.interrupted_delivered
    assert recovered.violations == 0
