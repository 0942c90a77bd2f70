"""Publishing the catalogue into the operational store: bulk reads, bulk writes, versions and holds.

Frames travel as CSV (`NULL` is the character U+001E), through COPY and a temporary table, so that 25,000 rows take one
statement. Nothing here computes prices; the caller holds one transaction and the publishing lock.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import cast

import psycopg
from sqlalchemy import Connection, func, insert, select, text, update

from resources.db.notices import tell_operations
from resources.db.tables import catalogue_versions, provider_health, providers

NULL = "\x1e"
_PUBLISH_LOCK = 0x70726963  # one publisher at a time
# Read in the order of these lists, written in the order of the CSV's columns.
OFFER_COLUMNS = (
    "offer_id", "provider", "provider_package_id", "package_id", "name", "kind", "coverage_key", "allowance", "data_mb",
    "validity_days", "cost_amount", "cost_currency", "landed_micros", "min_retail_micros", "stock", "order_hints",
    "is_best_price", "is_enabled", "on_offer", "excluded_reason",
)  # fmt: skip
PACKAGE_COLUMNS = (
    "package_id", "name", "destination_code", "destination_name", "destination_type", "kind", "coverage", "allowance",
    "data_mb", "daily_mb", "throttle_kbps", "validity_days", "voice_minutes", "sms", "networks", "supports_top_up",
    "price_minor_usd", "prices", "floor_micros", "rule_id", "best_offer_id", "best_landed_micros", "offer_count",
    "on_sale", "version",
)  # fmt: skip
_OFFERS_OUT = (
    "select offer_id, provider, provider_package_id, package_id, name, kind, coverage_key, allowance, data_mb,"
    " validity_days, (cost_amount * 1000000)::bigint as cost_micros, cost_currency, landed_micros, min_retail_micros,"
    " stock, order_hints, is_best_price::int, is_enabled::int, auto_mode::int, on_offer::int, excluded_reason"
    " from offers"
)
_PACKAGES_OUT = (
    "select package_id, name, destination_code, destination_name, destination_type, kind,"
    " array_to_string(coverage, E'\\x1f') as coverage, allowance, data_mb, daily_mb, throttle_kbps, validity_days,"
    " voice_minutes, sms, array_to_string(networks, E'\\x1f') as networks, supports_top_up::int, price_minor_usd,"
    " prices, floor_micros, rule_id, best_offer_id, best_landed_micros, offer_count, on_sale::int, version"
    " from packages"
)
_COSTS_OUT = "select package_id, provider, landed_micros from offers where on_offer and excluded_reason is null"


@dataclass(frozen=True, slots=True)
class ProviderState:
    """What decides whether a provider's offers may win."""

    slug: str
    enabled: bool
    priority: int
    order_fee_micros: int
    circuit_open: bool
    degraded: bool = False
    unfunded: bool = False


def lock_publishing(conn: Connection) -> None:
    """Wait until no other transaction publishes; holds until this one ends."""
    conn.execute(select(func.pg_advisory_xact_lock(_PUBLISH_LOCK)))


def provider_states(conn: Connection, now: datetime) -> dict[str, ProviderState]:
    """Return every provider's state by slug; a circuit whose time is over counts as closed."""
    health = provider_health.c
    joined = select(providers, health.degraded_since).outerjoin(provider_health, health.provider == providers.c.slug)
    rows = conn.execute(joined).all()
    return {
        row.slug: ProviderState(
            row.slug,
            row.enabled,
            row.priority,
            row.order_fee_micros,
            row.open_until is not None and row.open_until > now,
            degraded=row.degraded_since is not None,
            unfunded=row.unfunded_at is not None,
        )
        for row in rows
    }


def read_offers(conn: Connection) -> bytes:
    """Return every offer as CSV with a header; booleans are 0 and 1, costs `cost_micros`."""
    return _copy_out(conn, _OFFERS_OUT)


def read_costs(conn: Connection) -> bytes:
    """Return package, provider and landed cost of every offer that is on offer, as CSV with a header."""
    return _copy_out(conn, _COSTS_OUT)


def read_packages(conn: Connection) -> bytes:
    """Return every package as CSV with a header; lists are joined by U+001F, booleans 0 and 1."""
    return _copy_out(conn, _PACKAGES_OUT)


def write_offers(conn: Connection, csv: bytes) -> None:
    """Insert or update offers from CSV in the order of `OFFER_COLUMNS`.

    A person's choice outlives every sync: `is_enabled` of an offer with auto mode off stays as it is.
    """
    overrides = {"is_enabled": "case when offers.auto_mode then excluded.is_enabled else offers.is_enabled end"}
    _upsert(conn, "offers", OFFER_COLUMNS, csv, overrides, touched="seen_at = now(), updated_at = now()")


def write_packages(conn: Connection, csv: bytes) -> None:
    """Insert or update packages from CSV in the order of `PACKAGE_COLUMNS`."""
    _upsert(conn, "packages", PACKAGE_COLUMNS, csv, {}, touched="updated_at = now()")


def add_version(
    conn: Connection, *, packages: int, offers: int, changed: int, rates_on: date | None, run_id: str | None
) -> tuple[int, datetime]:
    """Record a new catalogue version (listeners hear of it at the commit) and return its number and time."""
    values = {"packages": packages, "offers": offers, "changed": changed, "rates_on": rates_on, "run_id": run_id}
    columns = (catalogue_versions.c.version, catalogue_versions.c.published_at)
    row = conn.execute(insert(catalogue_versions).values(**values).returning(*columns)).one()
    return int(row.version), row.published_at


def hold_provider(conn: Connection, slug: str, reason: str, now: datetime) -> None:
    """Note why a provider's last good catalogue stays on sale, and tell operations once a day and reason."""
    row = conn.execute(select(providers.c.held_reason, providers.c.held_at).where(providers.c.slug == slug)).one()
    since = row.held_at if row.held_reason else now
    conn.execute(update(providers).where(providers.c.slug == slug).values(held_reason=reason, held_at=since))
    digest = hashlib.blake2b(reason.encode(), digest_size=6).hexdigest()
    key = f"catalogue_held:{slug}:{now.date().isoformat()}:{digest}"
    note = f"The new catalogue of {slug} is held back: {reason}. Its last good catalogue stays on sale."
    tell_operations(conn, None, "catalogue_held", key, note)


def release_provider(conn: Connection, slug: str, now: datetime) -> None:
    """Note that a provider's fresh catalogue was taken, and tell operations where it was held."""
    held = conn.execute(select(providers.c.held_reason).where(providers.c.slug == slug).with_for_update()).scalar()
    if held is not None:
        note = f"The catalogue of {slug} is taken again."
        tell_operations(conn, None, "catalogue_held", f"catalogue_taken:{slug}:{now:%Y%m%dT%H%M%S}", note)
    taken = {"held_reason": None, "held_at": None, "synced_at": now}
    conn.execute(update(providers).where(providers.c.slug == slug).values(**taken))


def _upsert(
    conn: Connection, table: str, columns: Sequence[str], csv: bytes, overrides: dict[str, str], *, touched: str
) -> None:
    """COPY the rows into a temporary table and merge them; names come from this module only."""
    names, key = ", ".join(columns), columns[0]
    conn.execute(
        text(f"create temporary table fresh on commit drop as select {names} from {table} with no data")  # noqa: S608 - constants
    )
    with _driver(conn).cursor() as cursor:
        statement = f"copy fresh ({names}) from stdin (format csv, header true, null E'\\x1e')"
        with cursor.copy(statement.encode()) as copy:
            copy.write(csv)
    changes = ", ".join(f"{name} = {overrides.get(name, f'excluded.{name}')}" for name in columns[1:])
    merge = f"insert into {table} ({names}) select {names} from fresh on conflict ({key}) do update set {changes}"  # noqa: S608 - constants
    conn.execute(text(f"{merge}, {touched}"))
    conn.execute(text("drop table fresh"))


def _copy_out(conn: Connection, query: str) -> bytes:
    statement = f"copy ({query}) to stdout (format csv, header true, null E'\\x1e')"
    with _driver(conn).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        return b"".join(bytes(block) for block in copy)


def _driver(conn: Connection) -> psycopg.Connection:
    return cast(psycopg.Connection, conn.connection.driver_connection)
