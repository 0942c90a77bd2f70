"""Strict reading of what providers send: a field that is not what the contract says is refused, never guessed.

body -> `decode` -> wire row -> `amount`, `whole`, `text` -> an adapter's `parse_offer` -> `catalogue_page` (refused
rows become rejects). Nothing here knows a provider; refusals of catalogue fields are `InvalidOffer`, of whole answers
`MalformedReply`. No text leaves here that the database would refuse.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from esim.catalogue import CataloguePage, ProviderOffer, RejectedPlan, check_offer
from esim.errors import InvalidInput, InvalidOffer, MalformedReply
from esim.purchase import EsimProfile

PAYLOAD_CHARACTERS = 500
SAID_CHARACTERS = 200
_MOST_DIGITS = 24
_EXACT = 10**15  # whole numbers below it need no further look
_NUMERIC = frozenset({int, str, Decimal})  # JSON's own types, and no bool among them
_LONG_DIGITS = re.compile(r"\d{9,}")
_MAIL_ADDRESS = re.compile(r"\S+@\S+")
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")  # what no text in Postgres may hold
_ESCAPED_UNWRITABLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_BLANKS = re.compile(r"\s+")
_SPEED = re.compile(r"(?<![\d.])(\d{1,6}(?:\.\d{1,3})?)\s*([km])(?:bps|bit/s|b/s)", re.IGNORECASE)
_DAILY_SIZE = re.compile(
    r"(?<![\d.])(\d{1,5}(?:\.\d{1,3})?)\s*([GM])B?\s*(?:of\s+)?(?:data\s+|usage\s+)?(?:per|a|each|/)\s*day",
    re.IGNORECASE,
)

Row = Mapping[str, Any]
T = TypeVar("T")


def clean(text: str) -> str:
    """Return a text as it can be stored: NUL and halves of surrogate pairs become the replacement character."""
    return text if text.isprintable() else _UNWRITABLE.sub("\ufffd", text)


def decode(body: bytes) -> Any:
    """Return JSON in UTF-8 with exact decimals and `clean` texts.

    Raises:
        ValueError: it is not that.
        RecursionError: it is nested too deeply.
    """
    told = body.decode("utf-8-sig")
    value = json.loads(told, parse_float=Decimal)
    return _cleaned(value) if _ESCAPED_UNWRITABLE.search(told) else value


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(entry) for entry in value]
    return {clean(key): _cleaned(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def mapping(value: object, what: str) -> Row:
    """Return `value` as a JSON object.

    Raises:
        MalformedReply: it is something else.
    """
    if not isinstance(value, dict):
        raise MalformedReply(f"{what} is {type(value).__name__}, not an object")
    return value


def listing(value: object, what: str) -> Sequence[Any]:
    """Return `value` as a JSON list.

    Raises:
        MalformedReply: it is something else.
    """
    if not isinstance(value, list):
        raise MalformedReply(f"{what} is {type(value).__name__}, not a list")
    return value


def text(row: Row, key: str) -> str:
    """Return a text field without outer blanks; absent and null are empty, whole numbers become text.

    Raises:
        InvalidOffer: it is neither.
    """
    value = row.get(key)
    if type(value) is str:
        return clean(value).strip()
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidOffer(f"{key} is {type(value).__name__}, not text", field=key)
    return str(value).strip()


def loose_text(row: Row, key: str) -> str:
    """Return a text field, or nothing where it is not text: for fields that only describe."""
    value = row.get(key)
    return clean(value).strip() if isinstance(value, str) else ""


def amount(row: Row, key: str) -> Decimal:
    """Return a number field (JSON number or decimal text) exactly.

    Raises:
        InvalidOffer: it is absent, no number, not finite, or has more than 24 digits.
    """
    value: Any = row.get(key)
    kind = type(value)
    if kind is int and -_EXACT < value < _EXACT:
        return Decimal(value)
    if kind not in _NUMERIC:
        raise InvalidOffer(f"{key} is {glimpse(value)}, not a number", field=key)
    try:
        number = Decimal(value.strip() if kind is str else value)
    except InvalidOperation as error:
        raise InvalidOffer(f"{key} is {glimpse(value)}, not a number", field=key) from error
    if not _is_sensible(number):
        raise InvalidOffer(f"{key} of {glimpse(value)} is no sensible number", field=key)
    return number


def _is_sensible(number: Decimal) -> bool:
    # Counting digits exactly is slow, and a short text has few of them.
    text_of = str(number)
    if len(text_of) <= _MOST_DIGITS and "E" not in text_of:
        return number.is_finite()
    return (
        number.is_finite() and abs(number.adjusted()) <= _MOST_DIGITS and len(number.as_tuple().digits) <= _MOST_DIGITS
    )


def whole(row: Row, key: str) -> int:
    """Return a whole number field.

    Raises:
        InvalidOffer: it is absent or not whole.
    """
    number = amount(row, key)
    if number != number.to_integral_value():
        raise InvalidOffer(f"{key} of {number} is not whole", field=key)
    return int(number)


def trusted(read: Callable[..., T], *arguments: object) -> T:
    """Return what a field reader returns, outside of a catalogue.

    Raises:
        MalformedReply: the field is not what the contract says.
    """
    try:
        return read(*arguments)
    except InvalidInput as error:
        raise MalformedReply(str(error)) from error


def moment(value: object) -> datetime | None:
    """Return a time as providers write it (ISO 8601, blanks for T, any fraction); without a zone it is UTC."""
    if not isinstance(value, str) or not value:
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed


def glimpse(value: object) -> str:
    """Return a short, printable piece of a foreign value."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def said(message: object) -> str:
    """Return a provider's message fit for logs: one line, short, without mail addresses or long digit runs (ICCIDs)."""
    if not isinstance(message, str):
        return ""
    line = _BLANKS.sub(" ", clean(message[: 4 * SAID_CHARACTERS])).strip()
    return _LONG_DIGITS.sub("#", _MAIL_ADDRESS.sub("#", line))[:SAID_CHARACTERS]


def speed_kbps(policy: str) -> int | None:
    """Return the first speed a fair-use text names (`512 kbps`, `1.25 Mbps`) in kbit/s, None where it names none."""
    found = _SPEED.search(policy[:2000])
    if found is None:
        return None
    speed = int(Decimal(found[1]) * (1000 if found[2].lower() == "m" else 1))
    return speed or None


def daily_mb(policy: str) -> int | None:
    """Return the daily allowance a fair-use text names (`3 GB usage per day`, `1GB/day`) in nominal megabytes."""
    found = _DAILY_SIZE.search(policy[:2000])
    if found is None:
        return None
    size = int(Decimal(found[1]) * (1000 if found[2].lower() == "g" else 1))
    return size or None


def names(values: Iterable[object], *, most: int = 40, longest: int = 60) -> tuple[str, ...]:
    """Return network names once each, sorted, bounded in number and length."""
    found = {value.strip() for value in values if isinstance(value, str) and 0 < len(value.strip()) <= longest}
    return tuple(sorted(found)[:most])


def smdp_host(address: str) -> str:
    """Return an SM-DP+ address without scheme, path and blanks: some providers send a URL where a host belongs."""
    return address.strip().rpartition("://")[2].partition("/")[0]


def profile_from_lpa(lpa: object, *, iccid: str, confirmation_code: str = "") -> EsimProfile | None:
    """Return the profile an activation string `LPA:1$<address>$<matching id>` describes, None when it is not one."""
    if not isinstance(lpa, str):
        return None
    parts = lpa.strip().split("$")
    if len(parts) < 3 or parts[0].upper() not in {"LPA:1", "1"} or not smdp_host(parts[1]) or not iccid:
        return None
    return EsimProfile(
        iccid=iccid, smdp_address=smdp_host(parts[1]), activation_code=parts[2], confirmation_code=confirmation_code
    )


def catalogue_page(
    provider: str,
    rows: Sequence[Any],
    parse: Callable[[Row], ProviderOffer],
    *,
    id_key: str,
    seen: set[str],
    page: int = 1,
    pages: int | None = None,
) -> CataloguePage:
    """Return one page: rows that `parse` and `check_offer` accept, and the others with their reason.

    `seen` holds the plan ids of this listing so far: a plan listed again is a reject, since pages shift while read.
    """
    offers: list[ProviderOffer] = []
    rejects: list[RejectedPlan] = []
    for row in rows:
        try:
            if not isinstance(row, dict):
                raise InvalidOffer(f"the plan is {type(row).__name__}, not an object")
            offer = parse(row)
            check_offer(offer)
            if offer.provider_package_id in seen:
                raise InvalidOffer("the plan is listed twice; the first one counts", field=id_key)
        except InvalidInput as error:
            rejects.append(_rejected(provider, row, id_key, str(error)))
            continue
        seen.add(offer.provider_package_id)
        offers.append(offer)
    return CataloguePage(tuple(offers), tuple(rejects), page, pages)


def _rejected(provider: str, row: object, id_key: str, reason: str) -> RejectedPlan:
    plan_id = str(row.get(id_key) or "")[:100] if isinstance(row, dict) else ""
    return RejectedPlan(
        provider, plan_id, reason[:PAYLOAD_CHARACTERS], json.dumps(row, default=str)[:PAYLOAD_CHARACTERS]
    )
