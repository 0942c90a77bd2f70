"""What `numnaroad sql` refuses before it opens anything: all that writes, or reaches beyond the lake."""

from pathlib import Path

import pytest

from esim.errors import InvalidInput
from resources.warehouse.lake import Lake
from resources.warehouse.query import Reader


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("explain analyze copy (select 1) to 'out.csv'", "only reads the lake, and COPY"),
        ("explain (format json) copy (select 1) to 'out.csv'", "only reads the lake, and COPY"),
        ("EXPLAIN /* a */ ANALYZE copy (select 1) to 'out.csv'", "ANALYZE"),
        ("explain explain analyze copy (select 1) to 'out.csv'", "syntax error"),
        ("explain analyze delete from marts.margins", "only reads the lake, and DELETE"),
        ("install httpfs", "only reads the lake, and LOAD"),
        ("load httpfs", "only reads the lake, and LOAD"),
        ("pragma database_list", "cannot be checked"),
        ("set memory_limit = '1GB'", "only reads the lake, and SET"),
        ("call lake.set_option('parquet_compression', 'zstd')", "only reads the lake, and CALL"),
        ("select * from ducklake_cleanup_old_files('lake', cleanup_all => true)", "ducklake_cleanup_old_files"),
        ("select * from lake.set_option('parquet_compression', 'zstd')", "set_option"),
        ("from \"Postgres_Query\"('__ducklake_metadata_lake', 'select 1')", "(?i)postgres_query"),
        ("select (select count(*) from postgres_scan('host=localhost', 'public', 'orders'))", "postgres_scan"),
        ("explain analyze select * from postgres_query('__ducklake_metadata_lake', 'select 1')", "postgres_query"),
        ("describe select * from read_text('/etc/hostname')", "read_text"),
        ("select * from query('select 1')", "query"),
        ("from __ducklake_metadata_lake.public.ducklake_table", "catalogue's own tables"),
    ],
)
def test_what_does_more_than_read_the_lake_is_refused(tmp_path: Path, query: str, message: str) -> None:
    with Lake("postgresql://nobody@127.0.0.1:1/nothing", tmp_path) as lake, pytest.raises(InvalidInput, match=message):
        Reader(lake).run(query)
