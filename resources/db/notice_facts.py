"""What a customer's notice is rendered from, read when it is sent: address, eSIMs, amounts. All of it is personal."""

from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection, text

from esim.errors import NotFound
from esim.money import Money
from esim.orders import UnitStatus
from esim.purchase import EsimProfile
from resources.db.order_links import order_link
from resources.db.vault import Vault

_ORDER = text(
    """
    select o.display_id, o.email, o.currency, o.success_url, o.session_id,
        (select count(*) from esims e where e.order_id = o.order_id and e.status = 'delivered') as delivered
    from orders o where o.order_id = :order_id
    """
)
_UNITS = text(
    """
    select e.n, e.status, e.profile_enc, i.package, i.unit_price_minor
    from esims e join order_items i on i.item_id = e.item_id
    where e.order_id = :order_id and e.n = any(:units)
    order by e.n
    """
)


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """One eSIM of an order as a mail shows it; `profile` is None when it was never delivered."""

    n: int
    package_name: str
    price: Money
    delivered: bool  # still: one that was paid back since is the customer's no more
    profile: EsimProfile | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """One order as a mail shows it: the units asked for, and how many were delivered in all."""

    order_id: UUID
    display_id: str
    email: str = field(repr=False)
    order_url: str = field(repr=False)  # where the customer came back to; our own page with the token that opens it
    units: tuple[UnitFacts, ...]
    delivered: int


def order_facts(conn: Connection, order_id: UUID, units: Collection[int], vault: Vault) -> OrderFacts:
    """Return an order's address and the facts of `units`, by number.

    Raises:
        NotFound: there is no such order.
    """
    order = conn.execute(_ORDER, {"order_id": order_id}).one_or_none()
    if order is None:
        raise NotFound(f"there is no order {order_id}")
    found = tuple(
        UnitFacts(
            int(row.n),
            str(row.package.get("name", "")),
            Money(int(row.unit_price_minor), str(order.currency)),
            row.status == UnitStatus.DELIVERED,
            vault.decrypt_profile(bytes(row.profile_enc)) if row.profile_enc else None,
        )
        for row in conn.execute(_UNITS, {"order_id": order_id, "units": sorted(units)})
    )
    link = order_link(order.success_url, order.session_id, order_id, vault)
    return OrderFacts(order_id, order.display_id, order.email, link, found, int(order.delivered))
