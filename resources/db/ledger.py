"""The double-entry ledger: every posting sums to zero, and is booked once.

Amounts are micro-USD at the rate of the day the money moved (debit positive, credit negative), beside the original
amount and currency. Customers' amounts take the rate at which they were sold (`order_items.unit_price_micros_usd`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from esim.errors import InvalidMoney
from esim.money import Cost, Money, exponent
from resources.db.tables import ledger_entries

INSERT_ENTRIES = """
    insert into ledger_entries
        (posting_key, order_id, esim_n, account, amount_micros, original_amount, original_currency)
    select posting_key, order_id, esim_n, account, amount_micros, original_amount, original_currency
    from jsonb_to_recordset(cast(:entries as jsonb)) as entry(
        posting_key text, order_id uuid, esim_n smallint, account text, amount_micros bigint, original_amount numeric,
        original_currency text)
    on conflict do nothing
"""


class Account(StrEnum):
    """The accounts; assets and expenses grow by debits, what customers paid in grows by credits."""

    CASH = "cash"  # what the payment service holds for us
    CUSTOMER_PAYMENT = "customer_payment"
    PROVIDER_BALANCE = "provider_balance"  # prepaid at the providers
    COST_OF_SALES = "cost_of_sales"
    PAYMENT_FEES = "payment_fees"
    REFUNDS = "refunds"
    LOSS = "loss"
    DISPUTES = "disputes"  # withdrawn by customers' banks: back when won, a refund or a loss when lost
    STOCK = "stock"  # eSIMs bought that no unit got


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of a posting."""

    account: Account
    amount_micros: int
    original_amount: Decimal
    original_currency: str


@dataclass(frozen=True, slots=True)
class Posting:
    """Entries that belong together, under the key by which they are booked once."""

    key: str
    order_id: UUID
    entries: Sequence[Entry]
    esim_n: int | None = None


def payment_received(amount: Money, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for a customer's payment: cash against customer payments."""
    return _pair(Account.CASH, Account.CUSTOMER_PAYMENT, usd_micros, _major(amount), amount.currency)


def payment_fee(fee: Money, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for what the payment service kept: fees against cash."""
    return _pair(Account.PAYMENT_FEES, Account.CASH, usd_micros, _major(fee), fee.currency)


def provider_cost(cost: Cost, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for a delivered unit: cost of sales against our balance at the provider."""
    return _pair(Account.COST_OF_SALES, Account.PROVIDER_BALANCE, usd_micros, cost.amount, cost.currency)


def refund(amount: Money, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for money paid back: refunds against cash."""
    return _pair(Account.REFUNDS, Account.CASH, usd_micros, _major(amount), amount.currency)


def dispute_moved(amount: Money, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for what a dispute added to our cash; withdrawn money is negative."""
    return _pair(Account.CASH, Account.DISPUTES, usd_micros, _major(amount), amount.currency)


def refund_by_dispute(amount: Money, usd_micros: int, disputed_micros: int) -> tuple[Entry, ...]:
    """Return the entries for money that is with the customer: so much of it by a lost dispute, the rest from cash."""
    if disputed_micros <= 0:
        return refund(amount, usd_micros)
    if disputed_micros >= usd_micros:
        return _pair(Account.REFUNDS, Account.DISPUTES, usd_micros, _major(amount), amount.currency)
    part = (_major(amount) * disputed_micros / usd_micros).quantize(Decimal("0.000001"))
    return (
        Entry(Account.REFUNDS, usd_micros, _major(amount), amount.currency),
        Entry(Account.DISPUTES, -disputed_micros, -part, amount.currency),
        Entry(Account.CASH, disputed_micros - usd_micros, part - _major(amount), amount.currency),
    )


def dispute_lost(cost: Cost, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for what a lost dispute took beyond what the customer was owed: loss against disputes."""
    return _pair(Account.LOSS, Account.DISPUTES, usd_micros, cost.amount, cost.currency)


def cost_returned(cost: Cost, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for a delivered unit that its provider took back: our balance against cost of sales."""
    return _pair(Account.PROVIDER_BALANCE, Account.COST_OF_SALES, usd_micros, cost.amount, cost.currency)


def stock_returned(cost: Cost, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for an eSIM in stock that its provider took back: our balance against stock."""
    return _pair(Account.PROVIDER_BALANCE, Account.STOCK, usd_micros, cost.amount, cost.currency)


def stock_purchase(cost: Cost, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for an eSIM that was bought and that no unit got: stock against the provider balance."""
    return _pair(Account.STOCK, Account.PROVIDER_BALANCE, usd_micros, cost.amount, cost.currency)


def loss(cost: Cost, usd_micros: int) -> tuple[Entry, Entry]:
    """Return the entries for a purchase that is worth nothing to us any more: loss against stock."""
    return _pair(Account.LOSS, Account.STOCK, usd_micros, cost.amount, cost.currency)


def post(
    conn: Connection, posting_key: str, order_id: UUID, entries: Sequence[Entry], esim_n: int | None = None
) -> bool:
    """Book a posting; return False, changing nothing, when `posting_key` is booked already.

    Raises:
        InvalidMoney: the entries do not sum to zero, in USD or in an original currency.
    """
    rows = rows_of(Posting(posting_key, order_id, entries, esim_n))
    statement = insert(ledger_entries).values(rows).on_conflict_do_nothing()
    return conn.scalar(statement.returning(ledger_entries.c.entry_id)) is not None


def rows_of(posting: Posting) -> list[dict[str, object]]:
    """Return a posting's rows in the table.

    Raises:
        InvalidMoney: it does not sum to zero.
    """
    _check_balanced(posting.key, posting.entries)
    return [
        {
            "posting_key": posting.key,
            "order_id": posting.order_id,
            "esim_n": posting.esim_n,
            "account": entry.account,
            "amount_micros": entry.amount_micros,
            "original_amount": entry.original_amount,
            "original_currency": entry.original_currency,
        }
        for entry in posting.entries
    ]


def balance(conn: Connection, order_id: UUID) -> Mapping[str, int]:
    """Return an order's balance per account in micro-USD; together they are zero."""
    per_account = (
        select(ledger_entries.c.account, func.sum(ledger_entries.c.amount_micros))
        .where(ledger_entries.c.order_id == order_id)
        .group_by(ledger_entries.c.account)
    )
    return {str(account): int(total) for account, total in conn.execute(per_account)}


def unbalanced_postings(conn: Connection) -> list[str]:
    """Return the keys of postings that do not sum to zero: always none, and a check proves it."""
    off = (
        select(ledger_entries.c.posting_key)
        .group_by(ledger_entries.c.posting_key)
        .having(func.sum(ledger_entries.c.amount_micros) != 0)
    )
    return list(conn.scalars(off.order_by(ledger_entries.c.posting_key)))


def _pair(debit: Account, credit: Account, micros: int, amount: Decimal, currency: str) -> tuple[Entry, Entry]:
    return Entry(debit, micros, amount, currency), Entry(credit, -micros, -amount, currency)


def _major(money: Money) -> Decimal:
    return Decimal(money.minor).scaleb(-exponent(money.currency))


def _check_balanced(posting_key: str, entries: Sequence[Entry]) -> None:
    if not entries or sum(entry.amount_micros for entry in entries) != 0:
        raise InvalidMoney(f"posting {posting_key} does not sum to zero in USD; nothing was booked")
    for currency in {entry.original_currency for entry in entries}:
        if sum((entry.original_amount for entry in entries if entry.original_currency == currency), Decimal(0)) != 0:
            raise InvalidMoney(f"posting {posting_key} does not sum to zero in {currency}; nothing was booked")
