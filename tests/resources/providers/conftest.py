"""Fixtures of the provider contract tests."""

from collections.abc import Iterator

import pytest
import stamina

pytest.register_assert_rewrite(
    *(
        f"tests.resources.providers.{name}"
        for name in ("account_cases", "catalogue_cases", "purchase_cases", "sandbox_cases")
    )
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases for which a wire names nothing, instead of skipping them."""
    empty = [
        i for i in items if any("empty parameter set" in str(m.kwargs.get("reason")) for m in i.iter_markers("skip"))
    ]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


@pytest.fixture(autouse=True)
def _retries_without_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield
