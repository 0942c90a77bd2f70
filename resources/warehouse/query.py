"""Reads the lake for people: one statement at a time, nothing that writes."""

from dataclasses import dataclass

import duckdb
import polars as pl

from esim.errors import InvalidInput
from resources.warehouse.lake import Lake

_READING = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})
_OVERVIEW = """
select schema_name || '.' || table_name as name, estimated_size as rows, comment as description
from duckdb_tables() where database_name = 'lake'
union all
select schema_name || '.' || view_name, null, comment
from duckdb_views() where database_name = 'lake' and not internal
order by name
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """Answers queries on one lake; every answer is of the last committed snapshot."""

    lake: Lake

    def run(self, query: str) -> pl.DataFrame:
        """Return the rows of one reading statement.

        Raises:
            InvalidInput: it writes, is not exactly one statement, or does not run; the message says which.
        """
        self._check(query)
        try:
            return self.lake.read(query)
        except duckdb.Error as error:
            raise InvalidInput(str(error)) from error

    def tables(self) -> pl.DataFrame:
        """Return the tables and views there are, with what they mean."""
        return self.lake.read(_OVERVIEW)

    def _check(self, query: str) -> None:
        try:
            statements = duckdb.extract_statements(query)
        except duckdb.Error as error:
            raise InvalidInput(str(error)) from error
        if len(statements) != 1:
            raise InvalidInput(f"give one statement at a time; these are {len(statements)}")
        kind = statements[0].type
        if kind not in _READING:
            raise InvalidInput(
                f"this only reads the lake, and {kind.name} is not a reading statement; tables are changed by the"
                " models in dbt_like_sql/"
            )
