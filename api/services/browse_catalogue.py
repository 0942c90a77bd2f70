"""Catalogue questions answered from the snapshot, as bytes: no database, no outside call."""

import base64
import binascii
import unicodedata

import orjson

from api.errors import invalid
from api.schemas.catalogue import DestinationQuery, PackageQuery
from api.snapshot import CatalogueSnapshot, DestinationListing, Listing, SortKey

_COUNTRY_CODE_LENGTH = 2


def check_currency(currency: str, sold: tuple[str, ...]) -> None:
    """Refuse a currency that is not sold.

    Raises:
        Problem: with the field `currency` and what is sold.
    """
    if currency not in sold:
        raise invalid("currency", f"{currency} is not sold; use one of {', '.join(sold)}")


def destinations(snapshot: CatalogueSnapshot, query: DestinationQuery) -> bytes:
    """Return the destinations that match as JSON."""
    found = [_destination(d, query.currency) for d in find_destinations(snapshot, query)]
    return orjson.dumps({"destinations": found})


def find_destinations(snapshot: CatalogueSnapshot, query: DestinationQuery) -> list[DestinationListing]:
    """Return the destinations that match and sell in the currency, names that begin with the words first."""
    wanted = folded(query.q or "")
    rows: list[tuple[int, str, DestinationListing]] = []
    for destination in snapshot.destinations.values():
        rank = _match(destination, wanted)
        if rank is not None and destination.from_price(query.currency) is not None:
            rows.append((rank, folded(destination.name), destination))
    return [destination for _, _, destination in sorted(rows, key=lambda row: row[:2])]


def _match(destination: DestinationListing, wanted: str) -> int | None:
    if not wanted:
        return 0
    name = folded(destination.name)
    if destination.code.lower() == wanted or name.startswith(wanted):
        return 0
    if any(word.startswith(wanted) for word in name.split()):
        return 1
    return 2 if len(wanted) > _COUNTRY_CODE_LENGTH and wanted in name else None


def _destination(destination: DestinationListing, currency: str) -> dict[str, object]:
    return {
        "code": destination.code,
        "name": destination.name,
        "type": destination.type,
        "from_price": {"amount_minor": destination.from_price(currency), "currency": currency},
        "package_count": sum(currency in listing.package.prices for listing in destination.listings),
    }


def folded(text: str) -> str:
    """Return `text` without case and accents, so that `reunion` finds Réunion."""
    decomposed = unicodedata.normalize("NFKD", text.strip().casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def packages(snapshot: CatalogueSnapshot, query: PackageQuery) -> bytes:
    """Return one page of packages as JSON.

    Raises:
        Problem: the cursor is not one of ours, or belongs to another order or currency.
    """
    page, more = select_packages(snapshot, query)
    cursor = orjson.dumps(_cursor(query, page[-1][0])) if more else b"null"
    return b'{"packages":[%b],"next_cursor":%b}' % (b",".join(row.json(query.currency) for _, row in page), cursor)


def select_packages(snapshot: CatalogueSnapshot, query: PackageQuery) -> tuple[list[tuple[SortKey, Listing]], bool]:
    """Return the packages of one page with their sort keys, and whether more follow.

    Raises:
        Problem: the cursor is not one of ours, or belongs to another order or currency.
    """
    after = _read_cursor(query) if query.cursor else None
    page: list[tuple[SortKey, Listing]] = []
    for key, listing in snapshot.in_order(query.destination, query.sort, query.currency):
        if (after is not None and key <= after) or not _fits(listing, query):
            continue
        if len(page) == query.limit:
            return page, True
        page.append((key, listing))
    return page, False


def _fits(listing: Listing, query: PackageQuery) -> bool:
    package, total = listing.package, listing.total_mb
    tests = (
        query.min_data_mb is None or total is None or total >= query.min_data_mb,
        query.unlimited is None or query.unlimited == (total is None),
        query.min_days is None or package.validity_days >= query.min_days,
        query.max_days is None or package.validity_days <= query.max_days,
        query.max_price_minor is None or package.prices[query.currency] <= query.max_price_minor,
    )
    return all(tests)


def package(snapshot: CatalogueSnapshot, package_id: str, currency: str) -> bytes | None:
    """Return one package, or None where it is not on sale in this currency."""
    listing = snapshot.by_id.get(package_id)
    return None if listing is None or currency not in listing.package.prices else listing.json(currency)


def _cursor(query: PackageQuery, key: SortKey) -> str:
    """Say where a page ended: a place in the order, so that it stays good when the catalogue changes."""
    return base64.urlsafe_b64encode(orjson.dumps([query.sort, query.currency, *key])).decode().rstrip("=")


def _read_cursor(query: PackageQuery) -> SortKey:
    text = query.cursor or ""
    try:
        sort, currency, first, price, package_id = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, TypeError):
        raise invalid("cursor", "is not a cursor of ours; use next_cursor of the page before") from None
    if (sort, currency) != (query.sort, query.currency):
        raise invalid("cursor", f"belongs to sort={sort} and currency={currency}; keep them while paging")
    if not (isinstance(first, int) and isinstance(price, int) and isinstance(package_id, str)):
        raise invalid("cursor", "is not a cursor of ours; use next_cursor of the page before")
    return (first, price, package_id)
