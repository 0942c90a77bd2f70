"""The whole way to current numbers in one call: load changed rows, build the models, publish the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from resources.warehouse.build import BuildFailed, BuildResult, build_models
from resources.warehouse.lake import Lake
from resources.warehouse.loader import Loaded, load_changes
from resources.warehouse.models import Model, read_models
from resources.warehouse.publish import Published, publish


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did."""

    loaded: Mapping[str, Loaded]
    built: tuple[BuildResult, ...]
    published: Published


def refresh_warehouse(engine: Engine, lake: Lake, file: Path, models: Sequence[Model] | None = None) -> Refreshed:
    """Bring lake, marts and the published `file` up to date with the operational store, in this order.

    Raises:
        BuildFailed: a model was not built; what it would have replaced, and the file, are as before.
        PublishRefused: the marts do not tie to the ledger; the file is as before.
        LakeConflict, LakeUnavailable: the lake could not be read or written.
    """
    loaded = load_changes(engine, lake)
    results = list(build_models(lake, read_models() if models is None else models))
    failures = [result for result in results if isinstance(result, BuildFailed)]
    if failures:
        tests = tuple(test for failure in failures for test in failure.tests)
        raise BuildFailed("; ".join(str(failure) for failure in failures), tests)
    built = tuple(result for result in results if isinstance(result, BuildResult))
    return Refreshed(loaded, built, publish(lake, file))
