"""Reading a provider's catalogue whole, without letting one provider stop the others, and its last good one."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl
import structlog

from assets.offer_frames import JUDGED, OfferRows, empty_offers
from esim.errors import MalformedReply, ProviderError
from esim.ports import Provider
from resources.warehouse.lake import Lake

MOST_OFFERS = 250_000
MOST_PAGES = 20_000
MOST_SECONDS = 1_200.0  # a run is ended after 1,800: one endless catalogue must not end the others' sync
Progress = Callable[[str, int, int | None, int], None]  # provider, pages read, pages in all where told, offers so far

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Download:
    """What a provider answered: its rows and rejects, or why there is no catalogue (`failure`)."""

    provider: str
    offers: pl.DataFrame
    rejects: pl.DataFrame
    pages: int
    repeats: int
    seconds: float
    failure: str = ""


def download(provider: Provider, slug: str, progress: Progress | None = None) -> Download:
    """Read one provider's whole catalogue; never raises, so that one provider cannot stop the others."""
    rows, pages, started, failure = OfferRows(slug), 0, time.monotonic(), ""
    try:
        for page in provider.catalogue():
            pages += 1
            rows.add(page)
            _check_bounds(rows, pages, time.monotonic() - started)
            if progress is not None:
                progress(slug, pages, page.pages, len(rows))
    except ProviderError as error:
        failure = f"its catalogue could not be read: {error}"
    except Exception as error:  # noqa: BLE001 - an adapter surprised by a payload must not stop the other providers
        _log.exception("catalogue_download_failed", provider=slug)
        failure = f"its catalogue could not be read: unexpected {type(error).__name__} after page {pages}"
    seconds = time.monotonic() - started
    return Download(slug, rows.frame(), rows.rejects_frame(), pages, rows.repeats, seconds, failure)


@contextmanager
def bulk_parsing() -> Iterator[None]:
    """Keep Python from looking for reference cycles: payloads have none, and looking takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def last_good(lake: Lake, slug: str) -> pl.DataFrame | None:
    """Return the provider's last good catalogue, None before the first."""
    if not lake.table_exists("raw", f"{slug}_offers"):
        return None
    columns = ", ".join(JUDGED)
    frame = lake.read(f"select {columns} from raw.{slug}_offers")  # noqa: S608 - slugs come from the registry
    return pl.concat([empty_offers(), frame.cast(JUDGED)]).sort("offer_id")  # type: ignore[arg-type]  # stubs


def _check_bounds(rows: OfferRows, pages: int, seconds: float) -> None:
    if len(rows) + len(rows.rejects) > MOST_OFFERS or pages > MOST_PAGES or seconds > MOST_SECONDS:
        raise MalformedReply(
            f"it does not end: {len(rows)} plans on {pages} pages in {seconds:.0f} s"
            f" (limits {MOST_OFFERS}, {MOST_PAGES}, {MOST_SECONDS:.0f} s)"
        )
