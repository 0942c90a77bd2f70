"""Reads the SQL models: one `.sql` and one `.yml` per table, folder = schema, file stem = table.

`dbt_like_sql/` -> `read_models()` -> models in build order, with dependencies taken from the SQL. A model that is
incomplete or contradicts its description is refused here, before anything is built.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import sqlglot
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlglot import exp

from esim.errors import NumnaRoadError

MODELS_FOLDER = Path(__file__).resolve().parents[2] / "dbt_like_sql"
MODEL_SCHEMAS = ("staging", "core", "marts")
CHECKS = "checks"
Materialisation = Literal["view", "table"]


class InvalidModel(NumnaRoadError):
    """A SQL model cannot be used as it is written."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Relationship(_Strict):
    """The column's values exist in another table's column."""

    to: str
    column: str


class ModelTest(_Strict):
    """One test: exactly one of its kinds is set; `warn` keeps it from holding a build back."""

    not_null: bool = False
    unique: bool | tuple[str, ...] = False
    accepted_values: tuple[str, ...] = ()
    relationships: Relationship | None = None
    expression: str = ""
    no_rows: str = ""
    warn: bool = False

    @property
    def kind(self) -> str:
        """The name of the kind that is set."""
        kinds = ("not_null", "unique", "accepted_values", "relationships", "expression", "no_rows")
        return next(kind for kind in kinds if getattr(self, kind))


class ColumnDoc(_Strict):
    """A column as the `.yml` describes it; `type` is DuckDB's name."""

    name: str
    type: str
    description: str
    unit: str = ""
    tests: tuple[str | ModelTest, ...] = ()

    @property
    def comment(self) -> str:
        """What is written on the column in the lake and in the published file."""
        return f"{self.description.removesuffix('.')} [{self.unit}]." if self.unit else self.description


class ModelDoc(_Strict):
    """The `.yml` beside a model. With `money` its tests hold back a build; otherwise they warn."""

    description: str
    grain: str
    owner: str
    materialisation: Materialisation
    money: bool = False
    columns: tuple[ColumnDoc, ...]
    tests: tuple[ModelTest, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """One table of the warehouse: how it is computed, what it means, what it is made of."""

    schema: str
    table: str
    sql: str
    doc: ModelDoc
    dependencies: tuple[str, ...]
    checks: Mapping[str, str]

    @property
    def name(self) -> str:
        """`schema.table`."""
        return f"{self.schema}.{self.table}"

    @property
    def version(self) -> str:
        """A digest that changes with the SQL or its description."""
        return blake2b(f"{self.sql}{self.doc}{sorted(self.checks.items())}".encode(), digest_size=8).hexdigest()

    @property
    def comment(self) -> str:
        """What is written on the table in the lake and in the published file."""
        return f"{self.doc.description} {self.doc.grain}"


def read_models(folder: Path = MODELS_FOLDER) -> tuple[Model, ...]:
    """Return every model below `folder`, each after the models it reads.

    Raises:
        InvalidModel: a file is missing or wrong; the message names it and says what to do.
    """
    models = {model.name: model for model in (_read_model(path) for path in _model_files(folder))}
    for model in models.values():
        for name in model.dependencies:
            if name not in models and not name.startswith("raw."):
                raise InvalidModel(f"{model.name} reads {name}, which is neither a model nor a raw table")
    graph = {name: [other for other in model.dependencies if other in models] for name, model in models.items()}
    try:
        return tuple(models[name] for name in TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise InvalidModel(f"models read each other in a circle: {' -> '.join(error.args[1])}") from error


def referenced_tables(sql: str, where: str) -> tuple[str, ...]:
    """Return the `schema.table` names a query reads, without its CTEs, in alphabetical order.

    Raises:
        InvalidModel: it does not parse as one query, or names a table without its schema.
    """
    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.ParseError as error:
        raise InvalidModel(f"{where} does not parse: {error}") from error
    if not isinstance(tree, exp.Query):
        raise InvalidModel(f"{where} is not a single query")
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    names = set()
    for table in tree.find_all(exp.Table):
        if not table.db and table.name in ctes:
            continue
        if not table.db:
            raise InvalidModel(f"{where} reads {table.name} without a schema; write schema.table")
        names.add(f"{table.db}.{table.name}")
    return tuple(sorted(names))


def _model_files(folder: Path) -> Sequence[Path]:
    files = [path for schema in MODEL_SCHEMAS for path in sorted((folder / schema).glob("*.sql"))]
    if not files:
        raise InvalidModel(f"there are no models below {folder}")
    return files


def _read_model(path: Path) -> Model:
    sql, doc = path.read_text(), _read_doc(path.with_suffix(".yml"))
    name = f"{path.parent.name}.{path.stem}"
    if sql.split("\n", 1)[0] != f"-- {doc.grain}" or not doc.grain.startswith("One row per "):
        raise InvalidModel(f"{path}: the first line must be '-- One row per <grain>.', equal to grain in its .yml")
    names = [column.name for column in doc.columns]
    if repeated := {column for column in names if names.count(column) > 1}:
        raise InvalidModel(f"{path.with_suffix('.yml')}: described twice: {', '.join(sorted(repeated))}")
    checks = {test.no_rows: _read_check(path, test.no_rows) for test in doc.tests if test.no_rows}
    dependencies = referenced_tables(sql, str(path))
    if name in dependencies:
        raise InvalidModel(f"{path} reads itself")
    return Model(path.parent.name, path.stem, sql, doc, dependencies, checks)


def _read_doc(path: Path) -> ModelDoc:
    try:
        return ModelDoc.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError as error:
        raise InvalidModel(f"{path} is missing: describe the model there (owner, grain, columns)") from error
    except (ValidationError, yaml.YAMLError) as error:
        raise InvalidModel(f"{path}: {error}") from error


def _read_check(model: Path, name: str) -> str:
    path = model.parent.parent / CHECKS / f"{name}.sql"
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise InvalidModel(f"{model.with_suffix('.yml')} asks for the check {name}: {path} is missing") from error
