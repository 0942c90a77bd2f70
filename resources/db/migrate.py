"""Bring the operational store to the newest schema, in one place for `make run`, `numnaroad migrate` and tests."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from resources.db.databases import Databases, ensure_databases, make_engine

_ADVISORY_LOCK = 0x6E756D6E61  # only one process migrates at a time


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration for a database, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = url
    return config


def migrate(urls: Databases) -> None:
    """Create missing databases and upgrade the operational store to the newest revision; safe to repeat.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database refuses; each migration is one transaction.
    """
    ensure_databases(urls)
    engine = make_engine(urls.operational, pool_size=1)
    try:
        with engine.connect() as guard:
            guard.execute(text("select pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
            command.upgrade(alembic_config(urls.operational), "head")
            guard.execute(text("select pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
    finally:
        engine.dispose()
