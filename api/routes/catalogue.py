"""The catalogue over HTTP: the documented, typed routes that fill the ready answers of the hot path."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from api.deps import ShopDep
from api.errors import INVALID_REQUEST, NOT_FOUND, TOO_MANY_REQUESTS, not_found
from api.openapi import Responses, problems
from api.ready_answer import ReadyAnswer, Variant, accepts_gzip, matches
from api.schemas.catalogue import DestinationList, DestinationQuery, Package, PackagePage, PackageQuery, PriceQuery
from api.services import browse_catalogue
from api.shop import Shop
from api.snapshot import Shelved

router = APIRouter(prefix="/v1", tags=["catalogue"])
_NOT_MODIFIED: Responses = {304: {"description": "Unchanged since the answer whose `ETag` is in `If-None-Match`."}}


@router.get(
    "/destinations",
    operation_id="listDestinations",
    summary="List destinations",
    response_model=DestinationList,
    responses={**_NOT_MODIFIED, **problems(INVALID_REQUEST, TOO_MANY_REQUESTS)},
)
async def list_destinations(request: Request, shop: ShopDep, query: Annotated[DestinationQuery, Query()]) -> Response:
    """List where plans are sold for, with the lowest price and the number of packages."""
    browse_catalogue.check_currency(query.currency, shop.settings.sell_currencies)
    shelved = shop.shelf.current
    return _answer(request, shelved, browse_catalogue.destinations(shelved.snapshot, query))


@router.get(
    "/packages",
    operation_id="listPackages",
    summary="List packages",
    response_model=PackagePage,
    responses={**_NOT_MODIFIED, **problems(INVALID_REQUEST, TOO_MANY_REQUESTS)},
)
async def list_packages(request: Request, shop: ShopDep, query: Annotated[PackageQuery, Query()]) -> Response:
    """List plans on sale, filtered and ordered; a destination that is not known has an empty list."""
    browse_catalogue.check_currency(query.currency, shop.settings.sell_currencies)
    shelved = shop.shelf.current
    return _answer(request, shelved, browse_catalogue.packages(shelved.snapshot, query))


@router.get(
    "/packages/{package_id}",
    operation_id="getPackage",
    summary="Get one package",
    response_model=Package,
    responses={**_NOT_MODIFIED, **problems(NOT_FOUND, INVALID_REQUEST, TOO_MANY_REQUESTS)},
)
async def get_package(
    request: Request,
    shop: ShopDep,
    package_id: Annotated[str, Path(max_length=300, examples=["jp-5gb-30d"])],
    query: Annotated[PriceQuery, Query()],
) -> Response:
    """Get one plan that is on sale."""
    return _one(request, shop, package_id, query.currency)


def _one(request: Request, shop: Shop, package_id: str, currency: str) -> Response:
    browse_catalogue.check_currency(currency, shop.settings.sell_currencies)
    shelved = shop.shelf.current
    body = browse_catalogue.package(shelved.snapshot, package_id, currency)
    if body is None:
        raise not_found(f"There is no package {package_id} on sale.")
    return _answer(request, shelved, body)


def _answer(request: Request, shelved: Shelved, body: bytes) -> Response:
    """Answer with `body` and keep it ready, with the version it was made from."""
    answer = ReadyAnswer(shelved.snapshot.version, body)
    shelved.ready.put(request.scope["path"], request.scope["query_string"], answer)
    coding = request.headers.get("accept-encoding", "").encode()
    variant = answer.compressed if accepts_gzip(coding) else answer.plain
    known = request.headers.get("if-none-match", "").encode()
    return _Sent(variant, 304 if known and matches(known, variant.etag) else 200)


class _Sent(Response):
    """A ready answer as a response object, so that the first asker gets the same bytes as the next."""

    def __init__(self, variant: Variant, status: int) -> None:
        super().__init__(status_code=status)
        self.body = variant.body["body"] if status == 200 else b""
        self.raw_headers = list(variant.headers(status))
