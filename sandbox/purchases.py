"""What each provider really sold: the truth that tests and the demo compare the platform with.

One row per eSIM (or top-up). A row is never taken away except by a reset; its state follows the provider's: what is
delivered, processing or in the inventory costs money, what is reserved holds it, all else cost nothing in the end.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

STATES = ("reserved", "processing", "delivered", "cancelled", "refunded", "failed", "expired", "inventory")


@dataclass(slots=True)
class Purchase:
    """One unit on a provider's books; `reference` is ours as it was sent, None where the provider takes none."""

    provider: str
    reference: str | None
    order_id: str
    package_id: str
    iccid: str | None
    state: str
    cost: Decimal
    currency: str = "USD"
    kind: str = "sim"
    at: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row with its cost as exact text."""
        row = asdict(self)
        row["cost"] = str(self.cost)
        return row


class PurchaseLog:
    """All purchases in the order in which they were made."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._rows: list[Purchase] = []
        self.before_find: list[Callable[[], None]] = []

    def add(self, row: Purchase) -> Purchase:
        """Book one unit; the row may be changed as the order goes on."""
        row.at = row.at or self._now().isoformat()
        self._rows.append(row)
        return row

    def find(
        self, provider: str | None = None, reference: str | None = None, since: datetime | None = None
    ) -> list[Purchase]:
        """Rows of one provider, one reference or from one moment on; holds whose time is over are released first."""
        for refresh in self.before_find:
            refresh()
        return [
            row
            for row in self._rows
            if (provider is None or row.provider == provider)
            and (reference is None or row.reference == reference)
            and (since is None or datetime.fromisoformat(row.at) >= since)
        ]

    def counts(self, rows: list[Purchase] | None = None) -> dict[str, dict[str, int]]:
        """Units per provider and state."""
        counted = Counter((row.provider, row.state) for row in (self._rows if rows is None else rows))
        result: dict[str, dict[str, int]] = {}
        for (provider, state), units in sorted(counted.items()):
            result.setdefault(provider, {})[state] = units
        return result

    def __len__(self) -> int:
        return len(self._rows)

    def rows_of_order(self, provider: str, order_id: str) -> list[Purchase]:
        """The units of one order; used after a restart, when nobody holds the rows any more."""
        return [row for row in self._rows if row.provider == provider and row.order_id == order_id]

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()

    def dump(self) -> list[dict[str, Any]]:
        """All rows, for the state file."""
        return [row.as_json() for row in self._rows]

    def load(self, rows: list[dict[str, Any]]) -> None:
        """Take over the rows of a state file."""
        self._rows = [Purchase(**{**row, "cost": Decimal(row["cost"])}) for row in rows]
