from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.db.databases import Databases
from resources.warehouse.lake import Lake


@pytest.fixture
def lake(databases: Databases, tmp_path: Path) -> Iterator[Lake]:
    """An empty lake on fresh databases."""
    with Lake(databases.lake, tmp_path / "lake") as lake:
        yield lake
