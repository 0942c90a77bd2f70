"""Column lineage, read from the SQL: which columns of which tables a model's columns are made of."""

from collections.abc import Mapping, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify

from resources.warehouse.copies import COPIES
from resources.warehouse.models import Model

ColumnName = tuple[str, str]


def column_lineage(model: Model, models: Sequence[Model]) -> Mapping[str, tuple[ColumnName, ...]]:
    """Return for each column of `model` the `(schema.table, column)` pairs it is computed from.

    A column sqlglot cannot follow has no entry: lineage informs and never holds anything back.
    """
    try:
        tree = qualify(sqlglot.parse_one(model.sql, dialect="duckdb"), schema=_schema(models), dialect="duckdb")
    except SqlglotError:
        return {}
    found = {}
    for column in model.doc.columns:
        try:
            node = lineage(column.name, tree, schema=_schema(models), dialect="duckdb", copy=False)
        except (SqlglotError, ValueError):
            continue
        found[column.name] = tuple(sorted(set(_sources(node))))
    return found


def _sources(node: Node) -> list[ColumnName]:
    return [
        (f"{leaf.source.db}.{leaf.source.name}", exp.to_column(leaf.name).name)
        for leaf in node.walk()
        if isinstance(leaf.source, exp.Table) and not leaf.downstream
    ]


def _schema(models: Sequence[Model]) -> dict[str, object]:
    tables: dict[str, dict[str, dict[str, str]]] = {
        "raw": {copy.name: {column.name: column.type for column in copy.columns} for copy in COPIES}
    }
    for model in models:
        columns = {column.name: column.type for column in model.doc.columns}
        tables.setdefault(model.schema, {})[model.table] = columns
    return dict(tables)
