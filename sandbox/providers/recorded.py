"""Recorded catalogue payloads: `<folder>/<provider>/*.json` or its `raw/` folder; page k is the k-th file by name."""

import json
import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from sandbox.providers.shelf import Entry

logger = logging.getLogger("sandbox.recorded")

ReadPage = Callable[[Any], list[Entry] | None]


def recorded_pages(folder: Path | None, slug: str, read_page: ReadPage) -> list[tuple[list[Entry], Any]] | None:
    """The pages of one provider as (entries, whole payload); None when it has no folder or nothing usable in it.

    `read_page` returns the entries of a catalogue payload, None for any other JSON; such files are named in the log.
    """
    if folder is None or not (folder / slug).is_dir():
        return None
    for place in (folder / slug, folder / slug / "raw"):
        pages = [page for path in sorted(place.glob("*.json")) if (page := _read(path, read_page)) is not None]
        if pages:
            logger.info("%s serves %d recorded pages from %s", slug, len(pages), place)
            return pages
    logger.warning("%s has a folder below %s without one catalogue page; its generated catalogue stays", slug, folder)
    return None


def _read(path: Path, read_page: ReadPage) -> tuple[list[Entry], Any] | None:
    try:
        payload = json.loads(path.read_bytes(), parse_float=Decimal)
    except ValueError as error:
        logger.warning("%s ignored: not JSON (%s)", path, error)
        return None
    entries = read_page(payload)
    if entries is None:
        logger.warning("%s ignored: not a page of this provider's catalogue", path)
        return None
    return entries, payload
