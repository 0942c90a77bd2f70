"""Whether an order that an operator found at a provider is the purchase it is said to be.

Our reference in the provider's answer proves it. Without one, a wrong plan, an order from before the purchase or
another purchase that may be it speak against it: one customer's order must not go to another by a slip of the pen.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select

from esim.errors import Refused
from esim.purchase import Provisioned
from resources.db.esim_owners import owner_of
from resources.db.tables import esims, orders, purchase_attempts
from resources.db.vault import Vault

CLOCKS_DIFFER = timedelta(minutes=10)
_SENT = ("prepared", "pending", "unknown")
_SURE = "If you are sure that it is this purchase's, add --although-unproven (in Dagster: although_unproven)"


def check_found(
    conn: Connection, attempt: Row[Any], found: Provisioned, vault: Vault, now: datetime, *, although_unproven: bool
) -> None:
    """Refuse what is another purchase's, and, unless `although_unproven`, what may well be.

    Raises:
        Refused: it says what was found, where, and what to do.
    """
    _check_nobodys(conn, attempt, found, vault, now)
    facts, named = found.facts, f"{attempt.provider}'s order {found.provider_order_id}"
    if facts.reference and facts.reference != attempt.reference:
        raise Refused(
            f"{named} was bought under the reference {facts.reference}{_whose(conn, facts.reference)}; this purchase's "
            f"is {attempt.reference}. Look there for that one; if it is not there, say --not-bought"
        )
    ours = {_plain(attempt.provider_package_id), _plain(attempt.package_name)}
    if facts.packages and not ours & {_plain(package) for package in facts.packages}:
        plans = " or ".join(sorted(facts.packages))
        raise Refused(
            f"{named} is of {plans}; this purchase was of {attempt.provider_package_id}. Look there for another"
        )
    if facts.reference or although_unproven:
        return
    if facts.ordered_at is not None and facts.ordered_at < attempt.started_at - CLOCKS_DIFFER:
        raise Refused(
            f"{named} is from {facts.ordered_at:%Y-%m-%d %H:%M} UTC, before this purchase began "
            f"({attempt.started_at:%H:%M}). Look there for a later one. {_SURE}"
        )
    if others := _others_open(conn, attempt):
        raise Refused(
            f"nothing in {named} says whose it is, and other purchases of {attempt.provider_package_id} are open "
            f"there: {', '.join(others)}. Clear those up first, or wait until they are looked up. {_SURE}"
        )


def _check_nobodys(conn: Connection, attempt: Row[Any], found: Provisioned, vault: Vault, now: datetime) -> None:
    owner, order = owner_of(conn, attempt, found, vault, now), f"order {found.provider_order_id}"
    if owner is None:
        return
    if owner.what == "stock":
        raise Refused(
            f"{attempt.provider}'s {order} is {owner.named}, and nobody is given it. Say --not-bought, so that the "
            f"next offer is bought, and give that one back: numnaroad stock return {owner.stock_id}"
        )
    if owner.what == "order":
        raise Refused(f"{attempt.provider}'s {order} is a purchase of {owner.named}; look there for another one")
    raise Refused(
        f"{attempt.provider} names an eSIM that another order has ({owner.named}); nothing was delivered. Ask it what "
        f"it sold for our reference {attempt.reference}"
    )


def _whose(conn: Connection, reference: str) -> str:
    a, found = purchase_attempts.c, select(orders.c.display_id, esims.c.n, purchase_attempts.c.number)
    found = found.join_from(purchase_attempts, esims, a.esim_id == esims.c.esim_id)
    found = found.join(orders, a.order_id == orders.c.order_id).where(a.reference == reference)
    row = conn.execute(found).one_or_none()
    return "" if row is None else f", which is attempt {row.number} of order {row.display_id}, eSIM {row.n}"


def _others_open(conn: Connection, attempt: Row[Any]) -> list[str]:
    a, found = purchase_attempts.c, select(orders.c.display_id, esims.c.n, purchase_attempts.c.number)
    found = found.join_from(purchase_attempts, esims, a.esim_id == esims.c.esim_id)
    found = found.join(orders, a.order_id == orders.c.order_id).where(
        a.provider == attempt.provider,
        a.provider_package_id == attempt.provider_package_id,
        a.state.in_(_SENT),
        a.attempt_id != attempt.attempt_id,
    )
    rows = conn.execute(found.order_by(a.attempt_id).limit(5))
    return [f"order {row.display_id}, eSIM {row.n} (attempt {row.number})" for row in rows]


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
