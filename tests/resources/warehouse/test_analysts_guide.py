"""The guide for analysts is true: every query in it runs on a small shop and answers something."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine

from resources.warehouse.lake import Lake
from resources.warehouse.query import Reader
from resources.warehouse.refresh import refresh_warehouse
from tests.resources.warehouse.sales import small_shop

GUIDE = Path(__file__).parents[3] / "docs" / "analysts.md"
QUERIES = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.S)


def test_the_guide_asks_at_least_three_questions() -> None:
    assert len(QUERIES) >= 4


def test_every_query_of_the_guide_runs(engine: Engine, lake: Lake, tmp_path: Path) -> None:
    small_shop(engine)
    refresh_warehouse(engine, lake, tmp_path / "analytics.duckdb")
    for query in QUERIES:
        assert Reader(lake).run(query).width >= 1


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:fct|margins)_\w+)`", GUIDE.read_text()))))
def test_every_table_the_guide_names_is_a_model(name: str) -> None:
    assert list(GUIDE.parents[1].glob(f"dbt_like_sql/*/{name}.sql"))
