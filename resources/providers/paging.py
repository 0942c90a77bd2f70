"""Walking a paged catalogue or statement to its end, by the same rules for every provider that has pages.

page number -> an adapter's `read` -> `walk` -> pages of the catalogue. A page that repeats the one before, and pages
that never end, are errors: an incomplete list would look like withdrawn plans.
"""

from collections.abc import Callable, Iterator, Sequence

from esim.catalogue import CataloguePage
from esim.errors import MalformedReply
from esim.purchase import ProviderPurchase

_ID_CHARACTERS = 100  # as much as a reject keeps of its plan's id


def walk(
    what: str,
    read: Callable[[int], tuple[CataloguePage, bool | None]],
    *,
    most_pages: int,
    may_be_empty: bool = True,
) -> Iterator[CataloguePage]:
    """Yield the pages that `read` returns for 1, 2, ... with whether more follow, None where the list does not tell.

    A list that does not tell ends where a page brings nothing new: it is past its end, or ignores page numbers.

    Raises:
        ProviderError: a page cannot be read, repeats the one before or is empty though `may_be_empty` is False, or
            there are more than `most_pages`.
    """
    known: set[str] = set()
    before: list[str] = []
    for number in range(1, most_pages + 1):
        page, more = read(number)
        ids = _ids(page)
        if more is None and number > 1 and known.issuperset(ids):
            return
        if ids and ids == before:
            raise MalformedReply(f"{what}: page {number} repeats what was listed before")
        if more and (page.pages or 0) > most_pages:
            raise MalformedReply(f"{what}: {page.pages} pages are announced, more than {most_pages}")
        if more and not ids and not may_be_empty:
            raise MalformedReply(f"{what}: page {number} of {page.pages} is empty")
        yield page
        if more is False:
            return
        known.update(ids)
        before = ids
    raise MalformedReply(f"{what}: no end after {most_pages} pages")


def walk_statement(
    what: str,
    read: Callable[[int], tuple[Sequence[ProviderPurchase], bool]],
    *,
    most_pages: int,
    may_be_empty: bool = False,
) -> Iterator[ProviderPurchase]:
    """Yield the purchases on the pages 1, 2, ... that `read` returns with whether more follow, each order once.

    A purchase made meanwhile moves the others down a list that begins with the newest, so pages may overlap.

    Raises:
        ProviderError: a page cannot be read, brings nothing new though more follow, or there are more than
            `most_pages`: a statement with a hole in it would look like purchases that never were.
    """
    known: set[str] = set()
    for number in range(1, most_pages + 1):
        rows, more = read(number)
        new = {row.provider_order_id: row for row in rows if row.provider_order_id not in known}
        if more and not new and not (may_be_empty and not rows):
            raise MalformedReply(f"{what}: page {number} brings nothing new, and more are announced")
        yield from new.values()
        if not more:
            return
        known.update(new)
    raise MalformedReply(f"{what}: no end after {most_pages} pages")


def _ids(page: CataloguePage) -> list[str]:
    """Return what a page lists, in an order that does not depend on what was accepted."""
    offers = [offer.provider_package_id[:_ID_CHARACTERS] for offer in page.offers]
    return sorted(offers + [reject.provider_package_id or reject.payload for reject in page.rejects])
