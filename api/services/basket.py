"""What a basket costs today, by the database's rows: never by what the client says."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection

from api.errors import INVALID_REQUEST, PRICE_CHANGED, SOLD_OUT, FieldError, Problem, invalid
from api.schemas.checkout import CheckoutItem
from esim.money import MICROS, Money
from resources.db.catalogue_reader import PricedPackage, priced_packages, usd_micros_per_unit
from resources.db.checkout_store import NewLine


def price_basket(conn: Connection, items: Sequence[CheckoutItem], currency: str) -> list[NewLine]:
    """Return the lines of an order at today's prices.

    Raises:
        Problem: a package that never existed (422), sold out or at another price than expected (409, with all lines
            concerned and their present prices), or a currency without a price or rate (422).
    """
    found = priced_packages(conn, {item.package_id for item in items})
    _check_known(items, found)
    _check_as_listed(items, found, currency)
    rate = MICROS if currency == "USD" else usd_micros_per_unit(conn, currency)
    if rate is None:
        raise invalid("currency", f"{currency} has no reference rate today; use USD")
    return [_line(item, found[item.package_id], currency, rate) for item in items]


def _check_known(items: Sequence[CheckoutItem], found: dict[str, PricedPackage]) -> None:
    unknown = [
        FieldError(f"items.{index}.package_id", f"there is no package {item.package_id}")
        for index, item in enumerate(items)
        if item.package_id not in found
    ]
    if unknown:
        raise Problem(INVALID_REQUEST, "; ".join(error.message for error in unknown), unknown)


def _check_as_listed(items: Sequence[CheckoutItem], found: dict[str, PricedPackage], currency: str) -> None:
    gone = [item for item in items if not found[item.package_id].on_sale]
    on_sale = [item for item in items if found[item.package_id].on_sale]
    unpriced = [item.package_id for item in on_sale if currency not in found[item.package_id].sold.prices]
    if unpriced:
        raise invalid("currency", f"{', '.join(unpriced)} is not sold in {currency}")
    repriced = [
        item
        for item in on_sale
        if item.expected_price_minor not in {None, found[item.package_id].sold.prices[currency]}
    ]
    if not gone and not repriced:
        return
    concerned = [_present(item, found[item.package_id], currency) for item in items if item in gone or item in repriced]
    if gone:
        names = ", ".join(item.package_id for item in gone)
        raise Problem(SOLD_OUT, f"{names}: not on sale any more. Choose another package.", extra={"items": concerned})
    prices = ", ".join(
        f"{item.package_id} now costs {Money(found[item.package_id].sold.prices[currency], currency)}"
        for item in repriced
    )
    raise Problem(PRICE_CHANGED, f"{prices}. Show the new price and ask again.", extra={"items": concerned})


def _present(item: CheckoutItem, package: PricedPackage, currency: str) -> dict[str, object]:
    price = {"amount_minor": package.sold.prices[currency], "currency": currency} if package.on_sale else None
    return {
        "package_id": item.package_id,
        "expected_price_minor": item.expected_price_minor,
        "available": package.on_sale,
        "price": price,
    }


def _line(item: CheckoutItem, package: PricedPackage, currency: str, rate: int) -> NewLine:
    unit = Money(package.sold.prices[currency], currency)
    sold = asdict(package.sold)
    del sold["prices"], sold["updated_at"]
    return NewLine(
        package_id=item.package_id,
        package=sold,
        quantity=item.quantity,
        unit_price=unit,
        unit_price_micros_usd=(unit.micros * rate + MICROS // 2) // MICROS,
        expected_landed_micros=package.best_landed_micros,
    )
