"""What the table modules share: one metadata with naming rules, and the columns that mean the same everywhere."""

from sqlalchemy import Column, DateTime, MetaData, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Without none_as_null, None is stored as JSON's null, which is not null to SQL: unread work nobody can read.
JSON_OR_NULL = JSONB(none_as_null=True)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return the type's SQL name."""
        return "xid8"


def at(name: str, *, null: bool = False, now: bool = False) -> Column[object]:
    """Return a moment in UTC, required unless `null`, the insert's own moment by default if `now`."""
    return Column(name, DateTime(timezone=True), nullable=null, server_default=func.now() if now else None)


def changed() -> Column[int]:
    """Return the column a trigger sets to the writing transaction's id."""
    return Column("changed_xid", Xid8(), nullable=False, server_default=text("pg_current_xact_id()"))
