"""Put rows into a table of the lake, in a line."""

from typing import Any

import polars as pl

from resources.warehouse.lake import Lake
from resources.warehouse.writes import LakeTable, write_tables


def put(lake: Lake, schema: str, table: str, rows: pl.DataFrame, **options: Any) -> None:
    """Write one table."""
    write_tables(lake, [LakeTable(schema, table, rows, **options)])
