"""Whose an eSIM is: what another unit, another purchase or the stock has is not handed out or kept a second time.

A provider's order number is one purchase's for good; an ICCID is sold again after years. Whoever delivers a purchase,
takes its order's number or puts it into stock locks both here first, so that of two at once one sees the other.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, BYTEA, TEXT

from esim.purchase import Pending, Provisioned
from resources.db.vault import Vault

SAME_ESIM = timedelta(days=90)  # providers use ICCIDs again, but not while the eSIM they named is young

_LOCK = text(
    "select pg_advisory_xact_lock(key) from (select key from unnest(cast(:keys as bigint[])) key order by key) sorted"
)
_OWNER = text(
    """
    select what, display_id, n, stock_id from (
        select 1 as place, 'order' as what, o.display_id, e.n, null::bigint as stock_id
        from purchase_attempts a join esims e on e.esim_id = a.esim_id join orders o on o.order_id = a.order_id
        where a.provider = :provider and a.provider_order_id = :number and a.attempt_id <> :attempt_id
        union all
        select 2, 'esim', o.display_id, e.n, null
        from esims e join orders o on o.order_id = e.order_id
        where e.iccid_hash = :iccid_hash and e.provider = :provider and e.delivered_at > :young
        union all
        select 3, 'stock', o.display_id, e.n, t.stock_id
        from stock_esims t join purchase_attempts a on a.attempt_id = t.attempt_id
            join esims e on e.esim_id = a.esim_id join orders o on o.order_id = a.order_id
        where t.provider = :provider and t.attempt_id <> :attempt_id
            and (t.provider_order_id = :number or (t.iccid_hash = :iccid_hash and t.state = 'stock'))
    ) owners order by place limit 1
    """
).bindparams(bindparam("iccid_hash", type_=BYTEA))
_TAKEN = text(
    """
    select w.attempt_id
    from unnest(:attempt_ids, :providers, :numbers, :hashes) as w(attempt_id, provider, number, iccid_hash)
    where exists (select from esims e where e.iccid_hash = w.iccid_hash)
        or exists (
            select from purchase_attempts a
            where a.provider = w.provider and a.provider_order_id = w.number and a.attempt_id <> w.attempt_id)
        or exists (select from stock_esims t where t.provider = w.provider and t.provider_order_id = w.number)
        or exists (select from stock_esims t where t.iccid_hash = w.iccid_hash and t.state = 'stock')
    """
).bindparams(
    bindparam("attempt_ids", type_=ARRAY(BIGINT)),
    bindparam("providers", type_=ARRAY(TEXT)),
    bindparam("numbers", type_=ARRAY(TEXT)),
    bindparam("hashes", type_=ARRAY(BYTEA)),
)
_CUSTOMER = text(
    """
    select o.display_id, e.n from stock_esims t
        join esims e on e.provider = t.provider join orders o on o.order_id = e.order_id
    where t.stock_id = :stock_id and e.delivered_at is not null and (
        e.provider_order_id = t.provider_order_id
        or (e.iccid_hash = t.iccid_hash and e.delivered_at > t.created_at - cast(:young as interval)))
    limit 1
    """
)
_OTHER_ORDERS = text(
    """
    select a.provider_order_id, a.cost || ' ' || a.currency as cost from purchase_attempts a
    where a.provider = :provider and a.attempt_id > :attempt_id and a.slot = :slot and a.provider_order_id is not null
    union all
    select t.provider_order_id, a.cost || ' ' || a.currency
    from stock_esims t join purchase_attempts a on a.attempt_id = t.attempt_id
    where t.provider = :provider and t.attempt_id <> :attempt_id
    """
)
_SLOT_IS_TAKEN = text(
    """
    select exists (
        select from purchase_attempts a where a.slot = :slot and a.attempt_id <> :attempt_id
            and a.state in ('intent', 'prepared', 'pending', 'unknown'))
    """
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has what a provider names: a unit by its order or by its eSIM, or the stock."""

    what: str  # order, esim, stock
    display_id: str
    n: int
    stock_id: int | None

    @property
    def named(self) -> str:
        """The owner in a sentence, with ids only."""
        if self.what == "stock":
            return f"eSIM {self.stock_id} in stock (bought for order {self.display_id}, eSIM {self.n})"
        return f"order {self.display_id}, eSIM {self.n}"


@dataclass(frozen=True, slots=True)
class Named:
    """What a delivery is about to take."""

    attempt_id: int
    provider: str
    number: str
    iccid_hash: bytes


def owner_of(
    conn: Connection, attempt: Row[Any], found: Provisioned | Pending, vault: Vault, now: datetime
) -> Owner | None:
    """Return who else has the order or the eSIM that a provider names for an attempt; None when nobody has.

    Holds locks on both until the transaction ends; the caller has the locks of the attempt's order.
    """
    iccid = found.profile.iccid if isinstance(found, Provisioned) else ""
    hashed = vault.lookup_hash(iccid) if iccid else None
    _lock(conn, [_order_lock(attempt.provider, found.provider_order_id), *([_iccid_lock(hashed)] if hashed else [])])
    values = {"provider": attempt.provider, "number": found.provider_order_id, "attempt_id": attempt.attempt_id}
    row = conn.execute(_OWNER, values | {"iccid_hash": hashed, "young": now - SAME_ESIM}).one_or_none()
    return None if row is None else Owner(row.what, row.display_id, int(row.n), row.stock_id)


def taken(conn: Connection, names: Sequence[Named]) -> set[int]:
    """Return the attempts whose order or eSIM somebody else has or has had, or that name one twice between them.

    Holds locks on all of them until the transaction ends. Stricter than `owner_of`, which decides about what is left.
    """
    if not names:
        return set()
    orders = Counter(_order_lock(one.provider, one.number) for one in names)
    iccids = Counter(_iccid_lock(one.iccid_hash) for one in names)
    _lock(conn, [*orders, *iccids])
    columns = {
        "attempt_ids": [one.attempt_id for one in names],
        "providers": [one.provider for one in names],
        "numbers": [one.number for one in names],
        "hashes": [one.iccid_hash for one in names],
    }
    known = set(conn.scalars(_TAKEN, columns))
    return known | {
        one.attempt_id
        for one in names
        if orders[_order_lock(one.provider, one.number)] > 1 or iccids[_iccid_lock(one.iccid_hash)] > 1
    }


def customer_of_stock(conn: Connection, stock_id: int) -> str | None:
    """Return which unit was given an eSIM that is in stock, by its order number or its ICCID; None when none was."""
    row = conn.execute(_CUSTOMER, {"stock_id": stock_id, "young": SAME_ESIM}).one_or_none()
    return None if row is None else f"order {row.display_id}, eSIM {row.n}"


def other_orders(conn: Connection, attempt: Row[Any]) -> dict[str, str | None]:
    """Return the orders that are known to be other purchases' than this one, which may not be told apart otherwise.

    Those of its slot made after it, and those in stock: whatever else there was, was there when it was prepared.
    """
    values = {"provider": attempt.provider, "attempt_id": attempt.attempt_id, "slot": attempt.slot}
    return {row.provider_order_id: row.cost for row in conn.execute(_OTHER_ORDERS, values)}


def slot_is_taken(conn: Connection, attempt: Row[Any]) -> bool:
    """Return whether another purchase is open that could not be told from this one."""
    values = {"slot": attempt.slot, "attempt_id": attempt.attempt_id}
    return attempt.slot is not None and bool(conn.scalar(_SLOT_IS_TAKEN, values))


def _lock(conn: Connection, keys: Iterable[int]) -> None:
    conn.execute(_LOCK, {"keys": list(keys)})


def _iccid_lock(iccid_hash: bytes) -> int:
    return int.from_bytes(iccid_hash[:8], signed=True)


def _order_lock(provider: str, number: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{provider}:{number}".encode(), digest_size=8).digest(), signed=True)
