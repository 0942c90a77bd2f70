"""What eSIMCard's records prove: an account before and after a purchase, SIM records, words of refusal; no HTTP.

There is no reference of ours at eSIMCard, so the account itself is the evidence: balance and newest bundles and SIMs,
taken just before buying while no other purchase is open, and compared after the settle time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation

from esim.errors import MalformedReply
from esim.money import Cost
from esim.purchase import (
    ErrorType,
    EsimProfile,
    Evidence,
    Json,
    Outcome,
    Pending,
    ProviderPurchase,
    Provisioned,
    PurchaseRequest,
    SaleState,
    Unknown,
)
from resources.providers.esim_card_catalogue import CURRENCY, SLUG
from resources.providers.payload import Row, clean, loose_text, moment, profile_from_lpa, smdp_host

_BALANCE_WORDS = ("balance", "credit", "fund")
_STOCK_WORDS = ("stock", "available", "sold out")
_PRODUCT_WORDS = ("not found", "invalid", "exist", "discontinued", "expired")
FAILED = frozenset({"failed", "revoked", "cancelled", "canceled", "rejected"})
POLL_SECONDS = 3.0
_NOISE = Decimal("0.0001")
_GIGABYTE = 1 << 30
_UNITS = {"GB": _GIGABYTE, "MB": 1 << 20, "KB": 1 << 10}


def id_of(row: Row, key: str = "id") -> str:
    """Return an id, which is a text in some replies and a number in others; empty where there is none."""
    value = row.get(key)
    return clean(str(value)).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A paged list seen from both ends: which end is newest is not documented."""

    total: int
    first: tuple[Row, ...]
    last: tuple[Row, ...]

    @property
    def ids(self) -> list[str]:
        """The ids on both ends."""
        return sorted({id_of(row) for row in (*self.first, *self.last)} - {""})

    def new_since(self, known: Sequence[str]) -> list[Row]:
        """Return the rows that are not `known`: from the first page, or, when that did not change, from the last.

        On a list that begins with the newest, old rows move onto the last page: they must not count as new.
        """
        for rows in (self.first, self.last):
            new = [row for row in rows if id_of(row) not in known]
            if new:
                return new
        return []


@dataclass(frozen=True, slots=True)
class Account:
    """The account at a time: what a purchase changes."""

    balance: Decimal
    bundles: Shelf
    sims: Shelf


@dataclass(frozen=True, slots=True)
class Before:
    """The account before a purchase, as kept in its evidence."""

    balance: Decimal
    price: Decimal
    package: str
    bundles: int
    bundle_ids: tuple[str, ...]
    sims: int
    sim_ids: tuple[str, ...]

    @property
    def cost(self) -> Cost:
        """What the purchase was to cost."""
        return Cost(self.price, CURRENCY)


@dataclass(frozen=True, slots=True)
class Found:
    """Exactly one new bundle of the right name, paid with the right amount; `sim` is its new SIM, when there is one."""

    bundle: Row
    sim: Row | None


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing is new and nothing was paid."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """Neither: a person must look."""

    why: str


def evidence_of(account: Account, price: Decimal, package: str) -> dict[str, Json]:
    """Return an account before a purchase as evidence that can be stored as JSON."""
    return {
        "balance": str(account.balance),
        "price": str(price),
        "package": package,
        "bundles": account.bundles.total,
        "bundle_ids": list(account.bundles.ids),
        "sims": account.sims.total,
        "sim_ids": list(account.sims.ids),
    }


def before_from(evidence: Evidence) -> Before | None:
    """Return the account that `evidence_of` wrote down, None when it is not there."""
    bundle_ids, sim_ids = evidence.get("bundle_ids"), evidence.get("sim_ids")
    bundles, sims = evidence.get("bundles"), evidence.get("sims")
    if not (isinstance(bundle_ids, list) and isinstance(sim_ids, list)):
        return None
    if not (isinstance(bundles, int) and isinstance(sims, int)):
        return None
    try:
        balance, price = Decimal(str(evidence.get("balance"))), Decimal(str(evidence.get("price")))
    except InvalidOperation:
        return None
    return Before(
        balance,
        price,
        str(evidence.get("package") or ""),
        bundles,
        tuple(str(entry) for entry in bundle_ids),
        sims,
        tuple(str(entry) for entry in sim_ids),
    )


def compare(before: Before, now: Account, others: Mapping[str, Cost | None]) -> Found | Absent | Unclear:
    """Return what happened to the account since `before`, beside the orders of `others`, each with its cost."""
    bundles = now.bundles.new_since(before.bundle_ids)
    sims = now.sims.new_since(before.sim_ids)
    costs = {sim_of(number): cost for number, cost in others.items()}
    if theirs := [id_of(sim) for sim in sims if id_of(sim) in costs]:
        return _compare_rest(before, now, {sim: costs[sim] for sim in theirs})
    paid = paid_between(before.balance, now.balance)
    more = now.bundles.total - before.bundles
    if not bundles and not sims and not more and now.sims.total == before.sims and not paid:
        return Absent()
    if len(bundles) == 1 and more == 1 and paid == before.price and _same_name(bundles[0], before.package):
        if len(sims) <= 1:
            return Found(bundles[0], sims[0] if sims else None)
        return Unclear(f"one new bundle, but {len(sims)} new SIMs")
    return Unclear(f"{len(bundles)} new bundles, {len(sims)} new SIMs, {paid} {CURRENCY} paid of {before.price}")


def _compare_rest(before: Before, now: Account, theirs: Mapping[str, Cost | None]) -> Found | Absent | Unclear:
    """Return what happened beside other purchases' new SIMs: each took one bundle and its own cost."""
    if not all(cost is not None and cost.currency == CURRENCY for cost in theirs.values()):
        return Unclear(f"{len(theirs)} new SIMs are other purchases', at costs that are not known")
    rest = [sim for sim in now.sims.new_since(before.sim_ids) if id_of(sim) not in theirs]
    named = [bundle for bundle in now.bundles.new_since(before.bundle_ids) if _same_name(bundle, before.package)]
    more, more_sims = now.bundles.total - before.bundles - len(theirs), now.sims.total - before.sims - len(theirs)
    paid = paid_between(before.balance, now.balance + sum(cost.amount for cost in theirs.values() if cost))
    if not rest and not more and not more_sims and not paid:
        return Absent()
    if len(rest) == more == more_sims == 1 and paid == before.price and named:
        return Found(named[0], rest[0])
    beside = f"beside {len(theirs)} other purchases"
    return Unclear(f"{beside} {more} new bundles, {len(rest)} new SIMs, {paid} {CURRENCY} paid of {before.price}")


def paid_between(before: Decimal, after: Decimal) -> Decimal:
    """Return what a balance lost; balances are JSON numbers that may carry the noise of binary fractions."""
    return (before - after).quantize(_NOISE).normalize()


def refusal_type(message: str) -> ErrorType:
    """Return what a refusal's words mean: there are no codes."""
    words = message.casefold()
    for needles, error_type in (
        (_BALANCE_WORDS, ErrorType.INSUFFICIENT_BALANCE),
        (_STOCK_WORDS, ErrorType.OUT_OF_STOCK),
        (_PRODUCT_WORDS, ErrorType.INVALID_PRODUCT),
    ):
        if any(needle in words for needle in needles):
            return error_type
    return ErrorType.PROVIDER_API_ERROR


def identity(request: PurchaseRequest, order_id: str, sim_id: str) -> str:
    """Return the order number we keep: of a new eSIM its SIM, of a top-up eSIMCard's order (or bundle) and the SIM.

    An answer names the order, the account only the bundle: the SIM alone is the same however an eSIM was found, so the
    unique key of purchases catches one that would serve two units. Without any order a top-up goes by our reference.
    """
    return sim_id if request.top_up_of is None else f"{order_id or request.reference}/{sim_id}"


def sim_of(order_number: str) -> str:
    """Return the SIM in an order number of `identity`."""
    return _parts(order_number)[1]


def order_of(order_number: str) -> str:
    """Return the order in a top-up's number of `identity`, empty in a new eSIM's."""
    return _parts(order_number)[0]


def _parts(order_number: str) -> tuple[str, str]:
    """Return the order and the SIM in a number; one that is of no form of ours, typed by somebody, names a SIM."""
    order_id, slash, sim_id = order_number.partition("/")
    return (order_id, sim_id) if slash and "/" not in sim_id else ("", order_number)


def profile_of(sim: Row, request: PurchaseRequest | None = None) -> EsimProfile | None:
    """Return the activation data in a SIM record, None while there are none.

    A top-up brings no activation data: its profile only says which eSIM it went to.
    """
    sim_id, iccid = id_of(sim), id_of(sim, "iccid")
    if request is not None and request.top_up_of is not None:
        esim = request.top_up_of
        return EsimProfile(esim.iccid or iccid, "", "", esim.provider_esim_id or sim_id)
    profile = profile_from_lpa(sim.get("qr_code_text"), iccid=iccid)
    address = profile.smdp_address if profile else smdp_host(loose_text(sim, "smdp_address"))
    code = profile.activation_code if profile else loose_text(sim, "matching_id")
    if not (iccid and address and (profile or code)):
        return None
    return EsimProfile(
        iccid=iccid,
        smdp_address=address,
        activation_code=code,
        provider_esim_id=sim_id,
        apn=loose_text(sim, "apn"),
    )


def listed_purchase(sim: Row) -> ProviderPurchase:
    """Return one line of the list of SIMs: a SIM's id is our order number; neither its cost nor its package id is told.

    Raises:
        MalformedReply: it has no id or no time.
    """
    sim_id, bought_at = id_of(sim), moment(sim.get("created_at"))
    if not sim_id or bought_at is None:
        raise MalformedReply(f"{SLUG} my-esims: a SIM without an id or a time")
    iccid = id_of(sim, "iccid")
    gone = loose_text(sim, "status").casefold() in FAILED
    return ProviderPurchase(
        sim_id,
        bought_at,
        SaleState.GIVEN_BACK if gone else SaleState.SOLD if iccid else SaleState.OPEN,
        package_name=loose_text(sim, "last_bundle"),
        iccids=(iccid,) if iccid else (),
    )


def bytes_of(quantity: object, unit: str) -> int | None:
    """Return a usage quantity in bytes, None where it is the word Unlimited or not told."""
    if isinstance(quantity, bool) or not isinstance(quantity, int | Decimal):
        return None
    factor = _UNITS.get(unit.upper())
    return int(quantity * factor) if factor and 0 <= quantity < 10**6 else None


def _same_name(bundle: Row, package: str) -> bool:
    return " ".join(loose_text(bundle, "package").casefold().split()) == " ".join(package.casefold().split())


def unclear_message(request: PurchaseRequest, why: str) -> str:
    """Return what operations are told when the account cannot prove what became of a purchase."""
    return f"{SLUG}: {request.reference} cannot be told from the account ({why}); a person must look in the portal"


def sim_outcome(sim: Row, number: str, request: PurchaseRequest, cost: Cost | None) -> Outcome:
    """Return what a SIM record amounts to for an accepted purchase; a top-up needs no record."""
    status = loose_text(sim, "status")
    if status.casefold() in FAILED:
        # How a failed provisioning shows, and whether it is paid back, is not documented.
        return Unknown(ErrorType.PROVIDER_API_ERROR, f"{SLUG}: order {number} is {status}; a person must look")
    profile = profile_of(sim, request)
    return Pending(number, POLL_SECONDS, cost) if profile is None else Provisioned(profile, number, cost)


def expiry_of(record: Row) -> datetime | None:
    """Return when the last package on a SIM ends; eSIMCard writes no zone, UTC is presumed."""
    ends: list[datetime] = []
    for key in ("in_use_packages", "assigned_packages"):
        packages = record.get(key)
        for package in packages if isinstance(packages, list) else []:
            end = moment(package.get("date_expiry")) if isinstance(package, dict) else None
            if end is not None:
                ends.append(end)
    return max(ends, default=None)
