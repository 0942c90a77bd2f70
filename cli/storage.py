"""`numnaroad migrate`: bring the databases to the newest schema."""

from cli.console import make_console


def migrate() -> None:
    """Create missing databases and upgrade the operational store; safe to repeat."""
    from resources.db.databases import databases
    from resources.db.migrate import migrate as run_migrations
    from resources.settings import load_settings

    settings = load_settings()
    run_migrations(databases(settings))
    where = "the server in DATABASE_URL" if settings.database_url else f"the embedded server in {settings.data_dir}"
    make_console().print(f"The store on {where} has the newest schema.")
