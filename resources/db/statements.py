"""What providers say they sold to us, kept line by line and matched with our purchases.

A line is matched by our reference, by the provider's order number, or by an eSIM it names; ICCIDs are kept as keyed
hashes only. What is left is compared with purchases of the same plan at the same time that ended without an eSIM:
`likely_attempts` names those whose order should be read, since only reading it proves anything.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert

from esim.purchase import ProviderPurchase
from resources.db.tables import statement_lines
from resources.db.vault import Vault

NEAR = timedelta(minutes=10)  # between our sending and their order; clocks differ
_AT_ONCE = 500

_MATCHES = (
    text(
        """
        update statement_lines s set attempt_id = a.attempt_id from purchase_attempts a
        where s.provider = :provider and s.attempt_id is null and s.reference <> ''
            and a.reference = s.reference and a.provider = s.provider
        """
    ),
    text(
        """
        update statement_lines s set attempt_id = a.attempt_id from purchase_attempts a
        where s.provider = :provider and s.attempt_id is null
            and a.provider = s.provider and a.provider_order_id = s.provider_order_id
        """
    ),
    text(
        """
        update statement_lines s set attempt_id = t.attempt_id from stock_esims t
        where s.provider = :provider and s.attempt_id is null and t.provider = s.provider
            and (t.provider_order_id = s.provider_order_id or t.iccid_hash = any(s.iccid_hashes))
        """
    ),
    # An ICCID is given out again after years: only an eSIM delivered around that time is the one.
    text(
        """
        update statement_lines s set attempt_id = a.attempt_id
        from esims e join purchase_attempts a on a.esim_id = e.esim_id and a.state = 'provisioned'
        where s.provider = :provider and s.attempt_id is null and e.provider = s.provider
            and e.iccid_hash = any(s.iccid_hashes)
            and e.delivered_at between s.bought_at - interval '7 days' and s.bought_at + interval '90 days'
        """
    ),
)
# Purchases that left and ended without an eSIM: those a line is about by our reference or its number, else those of the
# same plan at the same time, where nobody here knows the line's eSIM and no purchase is open that it may be: that one's
# number and eSIM are not known here before its worker writes them down.
_LIKELY = text(
    """
    select distinct on (s.provider_order_id) s.provider_order_id, a.attempt_id
    from statement_lines s join purchase_attempts a on a.provider = s.provider
    where s.provider = :provider and s.state in ('sold', 'open') and a.state = 'rejected' and a.sent_at is not null
        and (
            a.attempt_id = s.attempt_id or (
                s.attempt_id is null and s.quantity = 1 and s.reference = '' and s.bought_at < :settled_before
                and a.sent_at between s.bought_at - cast(:near as interval) and s.bought_at + cast(:near as interval)
                and (a.provider_package_id = s.package_id or (s.package_id = '' and a.package_name = s.package_name))
                and not exists (select from esims e where e.iccid_hash = any(s.iccid_hashes))
                and not exists (select from stock_esims t where t.iccid_hash = any(s.iccid_hashes))
                and not exists (select from statement_lines o where o.attempt_id = a.attempt_id)
                and not exists (
                    select from purchase_attempts o
                    where o.provider = s.provider and o.state in ('prepared', 'pending', 'unknown')
                        and o.sent_at between s.bought_at - cast(:near as interval)
                            and s.bought_at + cast(:near as interval)
                        and (o.provider_package_id = s.package_id
                            or (s.package_id = '' and o.package_name = s.package_name))
                )
            )
        )
    order by s.provider_order_id, abs(extract(epoch from a.sent_at - s.bought_at)) limit 200
    """
)
_OLDEST = text(
    """
    select min(bought_at) from statement_lines
    where provider = :provider and bought_at > :since and attempt_id is null and state in ('sold', 'open')
    """
)


def keep_lines(engine: Engine, provider: str, lines: Iterable[ProviderPurchase], vault: Vault, now: datetime) -> int:
    """Keep a statement, the newest word on each order; return how many lines it has."""
    left, count = iter(lines), 0
    while batch := list(islice(left, _AT_ONCE)):
        rows = [_row(provider, line, vault, now) for line in {one.provider_order_id: one for one in batch}.values()]
        statement = insert(statement_lines).values(rows)
        told = ("reference", "package_id", "package_name", "quantity", "cost", "currency", "state", "iccid_hashes")
        news = {name: statement.excluded[name] for name in (*told, "bought_at", "read_at")}
        with engine.begin() as conn:
            conn.execute(statement.on_conflict_do_update(index_elements=["provider", "provider_order_id"], set_=news))
        count += len(batch)
    return count


def match_lines(conn: Connection, provider: str) -> int:
    """Match lines with the purchases they are; return how many were matched now."""
    return sum(conn.execute(statement, {"provider": provider}).rowcount for statement in _MATCHES)


def likely_attempts(conn: Connection, provider: str, settled_before: datetime) -> dict[int, str]:
    """Return purchases that ended without an eSIM, each with the provider's order that it may well have been.

    Guesses are made only about orders from before `settled_before`; younger ones are left for the next look.
    """
    values = {"provider": provider, "near": NEAR, "settled_before": settled_before}
    return {int(attempt_id): str(number) for number, attempt_id in conn.execute(_LIKELY, values)}


def oldest_unmatched(conn: Connection, provider: str, since: datetime) -> datetime | None:
    """Return when the oldest line without a purchase of ours was bought, since a moment: it is read again."""
    found: datetime | None = conn.scalar(_OLDEST, {"provider": provider, "since": since})
    return found


def _row(provider: str, line: ProviderPurchase, vault: Vault, now: datetime) -> dict[str, object]:
    return {
        "provider": provider,
        "provider_order_id": line.provider_order_id,
        "reference": line.reference,
        "package_id": line.package_id,
        "package_name": line.package_name,
        "quantity": line.quantity,
        "cost": None if line.cost is None else line.cost.amount,
        "currency": None if line.cost is None else line.cost.currency,
        "state": line.state,
        "iccid_hashes": [vault.lookup_hash(iccid) for iccid in line.iccids],
        "bought_at": line.bought_at,
        "read_at": now,
    }
