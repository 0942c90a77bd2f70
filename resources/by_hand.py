"""Who launched a run by hand, as the Launchpad's form says it; clocks and sensors fill in nothing."""

from datetime import datetime

import dagster as dg
from pydantic import Field

from resources.db.audit import Operator, looker


class ByHand(dg.Config):
    """Who launches a run that clocks and sensors start too, and why."""

    operator: str = Field(default="", description="Who launches it: your name, kept in the audit. A clock has none.")
    reason: str = Field(default="", description="Why; kept with the run too, so no address and nothing personal.")

    def who(self, now: datetime, run_id: str) -> Operator | None:
        """Return who looks; None where nobody put a name to the run.

        Raises:
            Failure: there is a reason and nobody who has it.
        """
        if self.operator.strip():
            return looker(self.operator, self.reason, now, run_id)
        if self.reason.strip():
            raise _not_filled_in("operator")
        return None


def decides(name: str, reason: str, now: datetime, run_id: str) -> Operator:
    """Return who decides something, and why.

    Raises:
        Failure: one of the fields is empty; it is named as the form names it.
    """
    for field, value in (("operator", name), ("reason", reason)):
        if not value.strip():
            raise _not_filled_in(field)
    return Operator(name, reason, now, run_id)


def _not_filled_in(field: str) -> dg.Failure:
    return dg.Failure(f"fill in `{field}`: it is kept with the action", allow_retries=False)
