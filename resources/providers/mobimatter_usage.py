"""MobiMatter's usage figures in bytes: `provider/info` -> `UsageReading`.

Allowances are megabytes counted with 1000 or with 1024 to the gigabyte, depending on the network behind (15 GB is 15360
here and 5 GB is 5000 there); used and total share the base, so it is read off the total.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from esim.purchase import UsageReading
from resources.providers.payload import Row, amount, loose_text, mapping, moment, trusted


def reading_of(result: object) -> UsageReading:
    """Return the usage over all plans on an eSIM; None where a plan does not tell.

    Raises:
        MalformedReply: the answer is not what the contract says.
    """
    info = mapping(result, "provider/info")
    esim = mapping(info.get("esim") or {}, "esim")
    packages = [mapping(package, "a package") for package in _packages(info)]
    figures = [_figures(package) for package in packages]
    expiries = [moment(package.get("expirationDate")) for package in packages]
    return UsageReading(
        used_bytes=_total([used for used, _ in figures]),
        total_bytes=_total([allowed for _, allowed in figures]),
        measured_at=None,
        expires_at=max((expiry for expiry in expiries if isinstance(expiry, datetime)), default=None),
        status=loose_text(esim, "status") or loose_text(esim, "smdpCode") or "unknown",
    )


def _packages(info: Row) -> Sequence[Any]:
    packages = info.get("packages")
    return packages if isinstance(packages, list) else []


def _figures(package: Row) -> tuple[int | None, int | None]:
    used = _megabytes(package, "usedMb")
    allowed = _megabytes(package, "totalAllowanceMb")
    megabyte = 1 << 20 if allowed and allowed % 1024 == 0 else 1_000_000
    return (None if used is None else used * megabyte, None if allowed is None else allowed * megabyte)


def _megabytes(package: Row, key: str) -> int | None:
    return None if package.get(key) is None else int(trusted(amount, package, key))


def _total(figures: Sequence[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known and len(known) == len(figures) else None
