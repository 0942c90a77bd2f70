"""eSIMs that were bought and that no unit got: kept, so that they are used, given back or written off knowingly."""

from typing import Any

from sqlalchemy import Connection, Row, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from esim.purchase import Pending, Provisioned
from resources.db.tables import stock_esims
from resources.db.vault import Vault


def keep_as_stock(
    conn: Connection, attempt: Row[Any], outcome: Provisioned | Pending, cost_micros: int, vault: Vault
) -> bool:
    """Keep what an attempt bought, once; return False when it is kept already.

    An accepted order that has no eSIM yet is kept without activation data, which a later reading fills in.
    """
    profile: dict[str, object] = {}
    if isinstance(outcome, Provisioned):
        profile["iccid_hash"] = vault.lookup_hash(outcome.profile.iccid)
        profile["profile_enc"] = vault.encrypt_profile(outcome.profile)
    row = {
        "attempt_id": attempt.attempt_id,
        "provider": attempt.provider,
        "offer_id": attempt.offer_id,
        "provider_order_id": outcome.provider_order_id,
        "cost_micros": cost_micros,
        "reason": f"attempt {attempt.number} was {attempt.state} when its purchase turned up",
    }
    kept = insert(stock_esims).values(**row, **profile).on_conflict_do_nothing(index_elements=["attempt_id"])
    if conn.scalar(kept.returning(stock_esims.c.stock_id)) is not None:
        return True
    if profile:
        blank = (stock_esims.c.attempt_id == attempt.attempt_id) & stock_esims.c.profile_enc.is_(None)
        conn.execute(update(stock_esims).where(blank).values(**profile))
    return False


def is_kept(conn: Connection, attempt_id: int) -> bool:
    """Return whether what an attempt bought was put into stock, whatever became of it since."""
    return bool(conn.scalar(select(exists().where(stock_esims.c.attempt_id == attempt_id))))
