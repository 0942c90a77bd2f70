"""Loads DuckDB extensions from their wheels, so that nothing is downloaded where the wheels are installed.

A wheel `duckdb-extension-<name>` holds the signed file for exactly one DuckDB version. Without such a wheel the
extension is installed the usual way, from DuckDB's own repository.
"""

from importlib.util import find_spec
from pathlib import Path

import duckdb


def load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load extension `name` into the connection's instance.

    Raises:
        duckdb.Error: there is no wheel, and it cannot be installed from the network either.
    """
    if (path := wheel_file(name)) is not None:
        connection.execute(f"load '{quoted(str(path))}'")
        return
    connection.execute(f"install {name}")
    connection.execute(f"load {name}")


def wheel_file(name: str) -> Path | None:
    """Return the extension's file in its wheel, None where the wheel is missing or made for another DuckDB."""
    spec = find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    return path if path.is_file() else None


def quoted(text: str) -> str:
    """Return `text` ready to stand between single quotes in SQL."""
    return text.replace("'", "''")
