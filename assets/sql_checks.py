"""The tests in the models' `.yml` as Dagster asset checks: blocking where money is concerned.

They run inside the transaction that builds the model (`resources.warehouse.build`): a table that fails is never seen.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from resources.warehouse.model_tests import TYPES_TEST, TestResult, planned_tests
from resources.warehouse.models import Model


def check_specs(model: Model) -> list[dg.AssetCheckSpec]:
    """Return the specs of a model's checks."""
    key = dg.AssetKey([model.schema, model.table])
    types = dg.AssetCheckSpec(
        TYPES_TEST, asset=key, blocking=True, description="The columns and their types are those the .yml describes."
    )
    tests = planned_tests(model)
    return [
        types,
        *(dg.AssetCheckSpec(t.name, asset=key, blocking=t.blocking, description=t.description) for t in tests),
    ]


def check_results(model: Model, results: Sequence[TestResult]) -> Iterator[dg.AssetCheckResult]:
    """Yield how a model's tests ended; failing rows are shown, they hold nothing personal."""
    for result in results:
        metadata: dict[str, str | int] = {"failing_rows": result.failures}
        if result.examples:
            metadata["examples"] = result.examples
        yield dg.AssetCheckResult(
            asset_key=[model.schema, model.table],
            check_name=result.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR if result.blocking else dg.AssetCheckSeverity.WARN,
            description=result.description,
            metadata=metadata,
        )
