"""Alembic's entry point: run the migrations on the database that `resources.db.migrate` names."""

from alembic import context

from resources.db.databases import make_engine
from resources.db.tables import metadata

engine = make_engine(context.config.attributes["url"], pool_size=1)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
