"""How far each comparison has looked: moved only after a whole look, so that what broke off is looked at again."""

from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from resources.db.tables import reconciliation_marks


def looked_until(conn: Connection, name: str) -> datetime | None:
    """Return the moment up to which something was looked through; None for never."""
    found: datetime | None = conn.scalar(
        select(reconciliation_marks.c.until).where(reconciliation_marks.c.name == name)
    )
    return found


def looked_position(conn: Connection, name: str) -> str:
    """Return the position noted with the mark, empty where there is none."""
    found = conn.scalar(select(reconciliation_marks.c.position).where(reconciliation_marks.c.name == name))
    return str(found or "")


def note_looked(conn: Connection, name: str, until: datetime, position: str = "") -> None:
    """Move a mark forward; of two who looked at once the one who saw more stays."""
    row = {"name": name, "until": until, "position": position}
    statement = insert(reconciliation_marks).values(**row)
    later = statement.excluded.until >= reconciliation_marks.c.until
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"until": until, "position": position}, where=later
        )
    )
