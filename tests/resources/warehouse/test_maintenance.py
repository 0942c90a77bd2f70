"""Housekeeping keeps every row, joins small files and forgets old snapshots."""

import polars as pl

from resources.warehouse.lake import Lake
from resources.warehouse.maintenance import maintain
from tests.resources.warehouse.lake_rows import put


def test_small_files_are_joined_and_old_snapshots_expire(lake: Lake) -> None:
    for turn in range(4):
        put(lake, "raw", "readings", pl.DataFrame({"reading_id": range(turn * 100, turn * 100 + 100)}), mode="append")
    put(lake, "raw", "readings", pl.DataFrame({"reading_id": [400]}), mode="append")
    kept = maintain(lake)
    assert kept.snapshots_expired == 0
    assert kept.files == 1
    done = maintain(lake, keep_days=0)
    assert done.snapshots_expired > 4
    assert done.snapshots < kept.snapshots
    assert lake.read("select count(*), count(distinct reading_id), max(reading_id) from raw.readings").row(0) == (
        401,
        401,
        400,
    )
