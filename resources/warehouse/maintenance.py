"""Housekeeping of the lake: small files joined, old snapshots expired, files that no snapshot needs deleted."""

from dataclasses import dataclass

import duckdb

from resources.warehouse.lake import Lake
from resources.warehouse.tables import NAME

KEEP_SNAPSHOTS_DAYS = 30
_GRACE = "1 day"  # a reader that started before may still have a file open


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one round did, and what the lake holds after it."""

    snapshots_expired: int
    files_deleted: int
    snapshots: int
    files: int
    size_bytes: int


def maintain(lake: Lake, keep_days: int = KEEP_SNAPSHOTS_DAYS) -> Maintained:
    """Compact, expire snapshots older than `keep_days` and clean up; safe to repeat, readers and writers go on.

    Raises:
        LakeConflict, LakeUnavailable: another writer kept the lake busy, or it cannot be reached.
    """
    with lake.exclusive("maintain"):
        for call in (f"ducklake_flush_inlined_data('{NAME}')", f"ducklake_merge_adjacent_files('{NAME}')"):
            lake.transact(lambda connection, call=call: _rows(connection, f"call {call}"))  # type: ignore[misc]  # bound default
        old = f"older_than => now() - interval '{int(keep_days)} days'"
        expired = lake.transact(lambda c: _rows(c, f"call ducklake_expire_snapshots('{NAME}', {old})"))
        unused = f"older_than => now() - interval '{_GRACE}'"
        deleted = lake.transact(lambda c: _rows(c, f"call ducklake_cleanup_old_files('{NAME}', {unused})"))
        with lake.connect(read_only=True) as connection:
            return Maintained(expired, deleted, *_size(connection))


def _rows(connection: duckdb.DuckDBPyConnection, call: str) -> int:
    return len(connection.execute(call).fetchall())


def _size(connection: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    query = (
        f"select (select count(*) from ducklake_snapshots('{NAME}')),"  # noqa: S608 - a constant
        " coalesce(sum(file_count), 0)::bigint, coalesce(sum(file_size_bytes), 0)::bigint"
        f" from ducklake_table_info('{NAME}')"
    )
    snapshots, files, size = connection.execute(query).fetchone() or (0, 0, 0)
    return int(snapshots), int(files), int(size)
