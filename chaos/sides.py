"""What every side says of a shop: its own store, the providers, the payment service and the mail carrier."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Table, select

from chaos.stage import Outside
from resources.db import tables
from resources.db.vault import Vault

Row = Mapping[str, Any]
COSTING = frozenset({"delivered", "processing", "inventory"})  # what is on a provider's books and was paid for
LIVE_OR_DONE = frozenset({"intent", "prepared", "pending", "unknown", "provisioned"})


@dataclass(frozen=True)
class Sides:
    """Everything that is compared, read once when all is quiet."""

    orders: Mapping[UUID, Row]
    units: Mapping[UUID, Row]  # by esim id
    items: Mapping[UUID, Row]  # by item id
    attempts: list[Row]
    stock: list[Row]
    events: list[Row]
    ledger: list[Row]
    refunds: list[Row]
    outbox: list[Row]
    purchases: list[Row]  # the providers' side
    balances: Mapping[str, str]
    charges: list[Row]  # Stripe's side
    mails: list[Row]  # the carrier's side
    hash_of: Callable[[str], bytes] = field(repr=False)
    attempt_of: Mapping[int, Row] = field(repr=False)  # index of a purchase -> our attempt

    def units_of(self, order_id: UUID) -> list[Row]:
        """An order's units by number."""
        return sorted((unit for unit in self.units.values() if unit["order_id"] == order_id), key=lambda u: u["n"])

    def charges_of(self, order_id: UUID) -> list[Row]:
        """What was really paid for an order, newest first."""
        return [row for row in self.charges if row["client_reference_id"] == str(order_id)]

    def is_paid(self, order_id: UUID) -> bool:
        """Whether the payment service took money for an order."""
        return bool(self.charges_of(order_id))


def read_sides(engine: Engine, outside: Outside, vault: Vault) -> Sides:
    """Ask everybody."""
    orders, units = _table(engine, tables.orders), _table(engine, tables.esims)
    attempts, stock = _table(engine, tables.purchase_attempts), _table(engine, tables.stock_esims)
    purchases = outside.read("/sandbox/purchases")["purchases"]
    return Sides(
        orders={row["order_id"]: row for row in orders},
        units={row["esim_id"]: row for row in units},
        items={row["item_id"]: row for row in _table(engine, tables.order_items)},
        attempts=attempts,
        stock=stock,
        events=sorted(_table(engine, tables.order_events), key=lambda row: row["event_id"]),
        ledger=_table(engine, tables.ledger_entries),
        refunds=_table(engine, tables.refunds),
        outbox=_table(engine, tables.outbox),
        purchases=purchases,
        balances=outside.read("/sandbox/balances"),
        charges=outside.read("/sandbox/charges")["charges"],
        mails=outside.read("/sandbox/mails")["mails"],
        hash_of=vault.lookup_hash,
        attempt_of=_matched(purchases, attempts, units, stock, vault),
    )


def _table(engine: Engine, table: Table) -> list[Row]:
    with engine.connect() as conn:
        return [dict(row) for row in conn.execute(select(table)).mappings()]


def _matched(
    purchases: list[Row], attempts: list[Row], units: list[Row], stock: list[Row], vault: Vault
) -> dict[int, Row]:
    """Say which of our attempts each eSIM on a provider's books belongs to: by ICCID, reference or order number."""
    by_id = {attempt["attempt_id"]: attempt for attempt in attempts}
    done = {attempt["esim_id"]: attempt for attempt in attempts if attempt["state"] == "provisioned"}
    by_iccid = {(unit["provider"], _bytes(unit["iccid_hash"])): done.get(unit["esim_id"]) for unit in units}
    by_iccid |= {(row["provider"], _bytes(row["iccid_hash"])): by_id.get(row["attempt_id"]) for row in stock}
    by_reference = {attempt["reference"]: attempt for attempt in attempts}
    by_number = _grouped(
        (a for a in attempts if a["provider_order_id"]), lambda a: (a["provider"], a["provider_order_id"])
    )
    found: dict[int, Row] = {}
    for index, row in enumerate(purchases):
        hashed = vault.lookup_hash(row["iccid"]) if row["iccid"] else b""
        numbered = by_number.get((row["provider"], row["order_id"]), [])
        attempt = by_iccid.get((row["provider"], hashed)) if hashed else None
        attempt = attempt or by_reference.get(row["reference"] or "")
        attempt = attempt or (numbered[0] if len(numbered) == 1 else None)
        if attempt is not None:
            found[index] = attempt
    return found


def _grouped(rows: Iterable[Row], key: Callable[[Row], object]) -> dict[object, list[Row]]:
    groups: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _bytes(value: Any) -> bytes:
    return bytes(value) if value is not None else b"-"
