"""Which offers a paid unit may be bought from, in the order they are tried, with the most each may cost.

First the offers of the package that was sold, then offers with the same coverage and kind and at least its data,
validity, voice and SMS. An offer qualifies when its provider is enabled, its circuit lets a call through and our
balance there suffices; when it is in the provider's last good catalogue, in stock, not refused as sold out lately, not
quarantined, not switched off by a person, and cheap enough to keep the order above the allowed loss. Providers most of
whose purchases fail come last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from esim.money import MICROS, Cost
from esim.pricing import BASIS_POINTS
from esim.provisioning import BuyableOffer
from resources.db.catalogue_reader import usd_micros_per_unit
from resources.db.outages import HOLDS

MOST_CANDIDATES = 12


@dataclass(frozen=True, slots=True)
class UnitSale:
    """What was sold as one unit: the package, its share of the payment in micro-USD, and the order's units."""

    package_id: str
    price_micros_usd: int
    units_in_order: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The offers to try, and whether more would qualify if their provider were not resting."""

    offers: tuple[BuyableOffer, ...]
    held_back: bool


# The package as sold is the yardstick; where its row is gone, only its own group can serve it.
_EQUIVALENT = """
select w.nr, c.* from unnest(cast(:packages as text[]), cast(:ceilings as bigint[])) with ordinality
    as w(package_id, ceiling, nr)
cross join lateral (
    with sold as (
        select p.package_id, p.kind, p.allowance, p.data_mb, p.daily_mb, p.throttle_kbps, p.validity_days,
            p.voice_minutes, p.sms,
            (select o.coverage_key from offers o where o.package_id = p.package_id limit 1) as coverage_key
        from packages p where p.package_id = w.package_id
    ), grouped as (
        select o.*, 0 as tier from offers o where o.package_id = w.package_id
        union all
        select o.*, 1 from sold s
        join offers o on o.coverage_key = s.coverage_key and o.kind = s.kind and o.package_id <> s.package_id
        join packages q on q.package_id = o.package_id
        where o.validity_days >= s.validity_days and q.voice_minutes >= s.voice_minutes and q.sms >= s.sms
            and (
                (o.allowance = s.allowance and s.allowance <> 'unlimited' and o.data_mb >= s.data_mb)
                or (o.allowance = 'unlimited' and s.allowance <> 'unlimited' and q.daily_mb is null)
                or (o.allowance = 'unlimited' and s.allowance = 'unlimited'
                    and (q.daily_mb is null or q.daily_mb >= s.daily_mb)
                    and (q.throttle_kbps is null or q.throttle_kbps >= s.throttle_kbps))
            )
    )
    select g.offer_id, g.provider, g.provider_package_id, g.name, g.cost_amount, g.cost_currency, g.landed_micros,
        g.order_hints, p.order_fee_micros, p.open_until, p.unfunded_at
    from grouped g join providers p on p.slug = g.provider left join provider_health h on h.provider = p.slug
    where p.enabled and g.on_offer and coalesce(g.stock, 1) > 0 and g.excluded_reason is null
        and (g.auto_mode or g.is_enabled) and g.landed_micros <= w.ceiling
        and not exists (select 1 from offer_outages x where x.offer_id = g.offer_id and {outage})
    order by h.degraded_since is not null, g.tier, {order}, p.priority, g.provider, g.provider_package_id
    limit :most
) c
order by w.nr
"""
_ORDERS = {"landed_cost": "g.landed_micros", "priority": "p.priority, g.landed_micros"}
_OUTAGE = HOLDS.format(offer="g")
_STATEMENTS = {name: text(_EQUIVALENT.format(order=order, outage=_OUTAGE)) for name, order in _ORDERS.items()}


def candidates(
    conn: Connection, sales: Sequence[UnitSale], *, failover_order: str, allowed_loss_minor_usd: int, now: datetime
) -> list[Candidates]:
    """Return for each sale the offers it may be bought from, best first; at most twelve."""
    fee = payment_fee(conn)
    ceilings = [ceiling_micros(sale, fee, allowed_loss_minor_usd) for sale in sales]
    wanted = list(dict.fromkeys(zip((sale.package_id for sale in sales), ceilings, strict=True)))
    values = {"packages": [key for key, _ in wanted], "ceilings": [most for _, most in wanted]}
    values |= {"most": MOST_CANDIDATES, "now": now}
    rows: dict[int, list[RowMapping]] = {}
    for row in conn.execute(_STATEMENTS[failover_order], values).mappings():
        rows.setdefault(int(row["nr"]), []).append(row)
    rates = _Rates(conn)
    found = {
        (package_id, ceiling): _candidates(rows.get(nr, ()), ceiling, rates, now)
        for nr, (package_id, ceiling) in enumerate(wanted, start=1)
    }
    return [found[sale.package_id, ceiling] for sale, ceiling in zip(sales, ceilings, strict=True)]


def payment_fee(conn: Connection) -> tuple[int, int]:
    """Return what the payment service keeps, by the rules in force: basis points, and micro-USD per payment."""
    fee = conn.execute(
        text(
            "select payment_fee_bp, payment_fee_micros from pricing_rules"
            " where scope = 'global' and valid_to is null order by rule_id desc limit 1"
        )
    ).one_or_none()
    return (int(fee[0]), int(fee[1])) if fee else (0, 0)


def ceiling_micros(sale: UnitSale, fee: tuple[int, int], allowed_loss_minor_usd: int) -> int:
    """Return the most one unit may cost in micro-USD: its price, less its part of the fee, plus its part of the loss.

    The allowed loss is an order's: its units share it equally.
    """
    fee_bp, fee_fixed = fee
    share = -(-sale.price_micros_usd * fee_bp // BASIS_POINTS) + -(-fee_fixed // sale.units_in_order)
    return sale.price_micros_usd - share + allowed_loss_minor_usd * (MICROS // 100) // sale.units_in_order


class _Rates:
    """Reference rates of one look, each read once."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._known: dict[str, int | None] = {"USD": MICROS}

    def of(self, currency: str) -> int | None:
        if currency not in self._known:
            self._known[currency] = usd_micros_per_unit(self._conn, currency)
        return self._known[currency]


def _candidates(rows: Sequence[RowMapping], ceiling: int, rates: _Rates, now: datetime) -> Candidates:
    offers, held_back = list[BuyableOffer](), False
    for row in rows:
        resting = row["open_until"] is not None and row["open_until"] > now
        if resting or row["unfunded_at"] is not None:
            held_back = True
        elif rate := rates.of(row["cost_currency"]):
            offers.append(replace(_offer(row, ceiling, rate), half_open=row["open_until"] is not None))
    return Candidates(tuple(offers), held_back)


def _offer(row: RowMapping, ceiling: int, rate: int) -> BuyableOffer:
    currency, fee = str(row["cost_currency"]), int(row["order_fee_micros"])
    most = (Decimal(ceiling - fee) / Decimal(rate)).quantize(Decimal("0.000001"), rounding=ROUND_DOWN)
    return BuyableOffer(
        offer_id=row["offer_id"],
        provider=row["provider"],
        provider_package_id=row["provider_package_id"],
        name=row["name"],
        expected_cost=Cost(row["cost_amount"], currency),
        cost_ceiling=Cost(most, currency),
        landed_micros=int(row["landed_micros"]),
        hints=_hints(row["order_hints"]),
    )


def _hints(stored: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in stored.items()}
