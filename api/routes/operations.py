"""Health, readiness and metrics: for load balancers and monitoring, outside the rate limit."""

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.deps import ShopDep
from api.errors import NOT_READY, Problem
from api.listener import POLL_SECONDS
from api.openapi import problems
from api.schemas.shared import Health, Readiness
from api.shop import Shop

router = APIRouter(tags=["operations"])
STALE_SECONDS = 4 * POLL_SECONDS


@router.get("/healthz", operation_id="health", summary="Is the process alive?")
async def health() -> Health:
    """Answer while the process can answer at all."""
    return Health(status="ok")


@router.get("/readyz", operation_id="readiness", summary="Can it serve?", responses=problems(NOT_READY))
async def readiness(shop: ShopDep) -> Readiness:
    """Answer 200 while the database answers and the catalogue was compared with it lately."""
    await run_in_threadpool(_ping, shop)
    age = (shop.clock() - shop.shelf.checked_at).total_seconds() if shop.shelf.checked_at else float("inf")
    if age > STALE_SECONDS:
        raise Problem(NOT_READY, f"The catalogue was last compared with the database {age:.0f} s ago.")
    snapshot = shop.shelf.current.snapshot
    return Readiness(
        status="ok",
        database="ok",
        catalogue_version=snapshot.version,
        catalogue_checked_seconds_ago=round(age, 1),
        packages=len(snapshot.by_id),
    )


def _ping(shop: Shop) -> None:
    try:
        with shop.engine.connect() as conn:
            conn.execute(text("select 1"))
    except SQLAlchemyError as error:
        raise Problem(NOT_READY, "The database does not answer.") from error


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format."}},
)
async def metrics(shop: ShopDep) -> Response:
    """Give the figures of this process, and of the order store, in Prometheus' text format."""
    shop.metrics.store = await run_in_threadpool(shop.store_figures)
    return Response(shop.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
