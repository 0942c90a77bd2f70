"""What the workers do to a paid order, without a provider: delivered or refunded units."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Engine

from esim.orders import UnitStatus
from esim.purchase import EsimProfile
from resources.db.transitions import lock_order, lock_units, move_unit, settle_order
from resources.db.vault import Vault

PROFILE = EsimProfile(
    iccid="8981100000000000017",
    smdp_address="rsp.example.com",
    activation_code="MATCH-0001",
    apn="internet",
)


def work(
    engine: Engine, order_id: str, target: UnitStatus, vault: Vault | None = None, only: int | None = None
) -> None:
    """Take every unit (or number `only`) of a paid order through its work to `target`."""
    now = datetime.now(UTC)
    with engine.begin() as conn:
        lock_order(conn, UUID(order_id))
        for unit in lock_units(conn, UUID(order_id)):
            if only not in {None, unit.n}:
                continue
            if unit.status is UnitStatus.QUEUED:
                move_unit(conn, unit, UnitStatus.WORKING, reason="claimed", actor="test", now=now)
            values = {"profile_enc": vault.encrypt_profile(PROFILE)} if vault else {}
            move_unit(conn, unit, target, reason="airalo says so", actor="test", now=now, values=values)
        settle_order(conn, UUID(order_id), reason="airalo says so", actor="test", now=now)
