"""The newest result of the daily proof as an asset: what is open per side, with a blocking check for each side.

The proof itself runs in jobs (`reconcile_payments`, `reconcile_providers`, `prove_books`), each of which ends by
reporting this asset; materialising it by hand only counts the open findings again.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from sqlalchemy import Engine

from assets.operations import GROUP
from resources.db.findings import OpenFinding, count_open, open_findings
from resources.order_operations import ToolSource

KEY = dg.AssetKey(["ops", "reconciliation"])
SIDES: Mapping[str, str] = {
    "payments": "What Stripe took and paid back is what we booked, and no payment is for nobody.",
    "providers": "What each provider says it sold to us is what we bought, at the cost we booked.",
    "books": "Orders, units, events and ledger explain each other, and every posting sums to zero.",
}
_SHOWN = 100
_COLUMNS = [
    ("number", "int"),  # by which it is accepted
    ("side", "string"),
    ("kind", "string"),
    ("order", "string"),
    ("what", "string"),
    ("since", "string"),
]
_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in _COLUMNS])


def check_name(side: str) -> str:
    """Return the name of a side's check."""
    return f"{side}_agree"


@dg.asset(
    key=KEY,
    group_name=GROUP,
    owners=["team:operations"],
    kinds={"postgres"},
    check_specs=[
        dg.AssetCheckSpec(check_name(side), asset=KEY, blocking=True, description=text) for side, text in SIDES.items()
    ],
)
def reconciliation(operations: dg.ResourceParam[ToolSource]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster leaves it unbound
    """One row per disagreement that is open between orders, ledger, Stripe and provider statements."""
    counts, shown = _open(operations.tools().engine)
    return dg.MaterializeResult(metadata=_metadata(counts, shown), check_results=list(_results(counts, shown)))


def report_agreement(instance: dg.DagsterInstance, engine: Engine) -> None:
    """Report the asset and its checks as they are now, from a job that has just looked."""
    counts, shown = _open(engine)
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, metadata=_metadata(counts, shown)))
    for result in _results(counts, shown):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=KEY,
                check_name=str(result.check_name),
                passed=result.passed,
                metadata=result.metadata or {},
                severity=result.severity,
                description=result.description,
                blocking=True,
            )
        )


def _open(engine: Engine) -> tuple[Mapping[str, int], list[OpenFinding]]:
    with engine.connect() as conn:
        return count_open(conn), open_findings(conn, limit=_SHOWN)


def _metadata(counts: Mapping[str, int], shown: list[OpenFinding]) -> dict[str, dg.MetadataValue[Any]]:
    rows = [
        dg.TableRecord(
            {
                "number": one.finding_id,
                "side": one.side,
                "kind": one.kind,
                "order": one.display_id or "",
                "what": str(one.details["text"]),
                "since": f"{one.first_seen:%Y-%m-%d %H:%M}",
            }
        )
        for one in shown
    ]
    open_now = {f"open: {side}": dg.MetadataValue.int(counts.get(side, 0)) for side in SIDES}
    return {**open_now, **{"findings": dg.MetadataValue.table(records=rows, schema=_SCHEMA)}}


def _results(counts: Mapping[str, int], shown: list[OpenFinding]) -> Iterator[dg.AssetCheckResult]:
    for side in SIDES:
        count = counts.get(side, 0)
        first = next((str(one.details["text"]) for one in shown if one.side.split(":")[0] == side), "")
        yield dg.AssetCheckResult(
            asset_key=KEY,
            check_name=check_name(side),
            passed=not count,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{count} findings are open. {first}".strip(),
            metadata={"open": count},
        )


reconciliation_assets: list[dg.AssetsDefinition] = [reconciliation]
