"""Which databases there are, how to reach them, and how they come to be.

Operational store, Dagster's storage and the lake's catalogue are three databases of one server unless a setting names
another place. `databases(settings)` starts the embedded server when `DATABASE_URL` is not set.
"""

from dataclasses import dataclass
from functools import lru_cache
from time import monotonic

import psycopg
from psycopg import sql
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from resources.db.embedded import DATABASE, start_embedded, with_database
from resources.settings import Settings

_TRUSTED_SECONDS = 1.0  # a connection used a moment ago is not asked whether it is still there


@dataclass(frozen=True, slots=True)
class Databases:
    """Plain libpq URLs (`postgresql://…`) of the three databases."""

    operational: str
    dagster: str
    lake: str

    @property
    def dagster_sqlalchemy(self) -> str:
        """The URL for dagster-postgres, which needs psycopg2 to be named."""
        return self.dagster.replace("postgresql://", "postgresql+psycopg2://", 1)


@lru_cache(maxsize=4)
def databases(settings: Settings) -> Databases:
    """Return the three databases' URLs, starting the embedded server where no server is configured."""
    if settings.database_url is None:
        operational = with_database(start_embedded(settings.data_dir), DATABASE)
    else:
        operational = plain_url(settings.database_url.get_secret_value())
    name = make_url(operational).database or DATABASE
    dagster, lake = settings.dagster_database_url, settings.lake_catalogue_url
    return Databases(
        operational=operational,
        dagster=plain_url(dagster.get_secret_value()) if dagster else with_database(operational, f"{name}_dagster"),
        lake=plain_url(lake.get_secret_value()) if lake else with_database(operational, f"{name}_lake"),
    )


def plain_url(url: str) -> str:
    """Return a libpq URL for any spelling SQLAlchemy accepts (`postgres://`, `postgresql+psycopg://`, …)."""
    _, _, rest = url.partition("://")
    return f"postgresql://{rest}"


def ensure_databases(urls: Databases) -> None:
    """Create the databases that do not exist yet.

    Raises:
        psycopg.Error: the server cannot be reached, or the role may not create databases.
    """
    for url in (urls.operational, urls.dagster, urls.lake):
        name = make_url(url).database or ""
        try:
            psycopg.connect(url, connect_timeout=10).close()
        except psycopg.OperationalError as error:
            if "does not exist" not in str(error):
                raise
            with psycopg.connect(with_database(url, "postgres"), autocommit=True, connect_timeout=10) as connection:
                try:
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
                except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    continue  # another process was quicker


def make_engine(
    url: str, *, pool_size: int = 10, overflow: int | None = None, idle_transaction_seconds: int = 0
) -> Engine:
    """Return a pooled engine on psycopg 3 for a libpq URL; sessions work in UTC.

    `pool_size` connections are kept, and `overflow` more (as many again, when not given) are opened under pressure and
    closed after their use. A transaction in which nothing was asked for `idle_transaction_seconds` is ended by the
    server (0: never), so that a process that stands still does not keep what it locked.
    """
    options = f"-c timezone=UTC -c idle_in_transaction_session_timeout={idle_transaction_seconds * 1000}"
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=pool_size,
        max_overflow=pool_size if overflow is None else overflow,
        pool_use_lifo=True,
        hide_parameters=True,  # errors reach logs; what they were about must not
        connect_args={"options": options, "connect_timeout": 10},
    )
    event.listen(engine, "checkout", _ask_idle)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "handle_error", _hide_rows)
    return engine


@lru_cache(maxsize=16)
def at_once(engine: Engine) -> Engine:
    """Return `engine` for statements that are a transaction each, without the two round trips of BEGIN and COMMIT."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _hide_rows(context: ExceptionContext) -> None:
    """Leave only what failed in an error's text: the server adds the row it was about, and errors reach logs."""
    error, shown = context.original_exception, context.sqlalchemy_exception
    if isinstance(error, psycopg.Error) and error.diag.message_detail and error.diag.message_primary:
        error.args = (error.diag.message_primary,)
        if shown is not None:
            shown.args = (f"({type(error).__module__}.{type(error).__qualname__}) {error.diag.message_primary}",)


def _note_use(connection: psycopg.Connection, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = monotonic()


def _ask_idle(connection: psycopg.Connection, record: ConnectionPoolEntry, proxy: object) -> None:
    """Have the pool open a fresh connection in place of one that was lost while it lay idle."""
    if monotonic() - record.info.get("used_at", float("inf")) < _TRUSTED_SECONDS:
        return  # a fresh one was never used
    try:
        connection.execute("select 1")
        connection.rollback()
    except psycopg.Error as error:
        raise InvalidatePoolError from error
