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


@pytest.fixture(autouse=True)
def _retries_without_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield
