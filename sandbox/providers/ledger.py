"""One provider's books: wallet, orders and the eSIMs it made, with indexes so that a purchase costs no search.

Numbers grow with the clock, so ids and ICCIDs do not repeat after a restart. Amounts are exact Decimals.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from sandbox.providers.shelf import Package
from sandbox.purchases import Purchase
from sandbox.world import World

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def with_luhn(digits: str) -> str:
    """The digits with their Luhn check digit behind them."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return f"{digits}{-total % 10}"


def token(*parts: object, size: int = 32) -> str:
    """Upper-case hexadecimal that depends on the parts alone."""
    return blake2b(":".join(map(str, parts)).encode(), digest_size=size // 2).hexdigest().upper()


def uuid_text(*parts: object) -> str:
    """A version 4 style UUID that depends on the parts alone."""
    hexed = token(*parts).lower()
    return f"{hexed[:8]}-{hexed[8:12]}-4{hexed[13:16]}-8{hexed[17:20]}-{hexed[20:32]}"


@dataclass(slots=True)
class Bundle:
    """Data bought for an eSIM; `data_bytes` is None when unlimited."""

    bundle_id: str
    order_id: str
    package_id: str
    title: str
    data_bytes: int | None
    days: int
    bought_at: str
    kind: str = "sim"
    used_bytes: int = 0
    state: str = "new"
    started_at: str | None = None


@dataclass(slots=True)
class Sim:
    """One eSIM profile; `sim_id` is the provider's own id, which stays when an ICCID is given out again."""

    sim_id: str
    iccid: str
    matching_id: str
    host: str
    order_id: str
    created_at: str
    state: str = "new"
    label: str = ""
    bundles: list[Bundle] = field(default_factory=list)

    @property
    def lpa(self) -> str:
        """The activation code a phone reads."""
        return f"LPA:1${self.host}${self.matching_id}"


@dataclass(slots=True)
class Order:
    """One order; `unit_cost` is what the wallet paid for a unit."""

    order_id: str
    number: int
    reference: str | None
    package_id: str
    title: str
    kind: str
    quantity: int
    unit_cost: Decimal
    currency: str
    created_at: str
    state: str
    sims: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def created(self) -> datetime:
        """The moment of the order."""
        return datetime.fromisoformat(self.created_at)


class Ledger:
    """The state of one provider; everything a router answers comes from here."""

    def __init__(self, world: World, slug: str, *, iccid_prefix: str, host: str) -> None:
        self.world = world
        self.slug = slug
        self._prefix = iccid_prefix
        self._host = host
        self._last = 0
        self.start()
        world.on_reset(self.start)
        world.keep(f"provider.{slug}", self.dump, self.load)

    def start(self) -> None:
        """Empty books and a full wallet; the counter goes on, so that no number comes twice."""
        self.balance = self.world.config.balance
        self.orders: dict[str, Order] = {}
        self.by_reference: dict[str, list[str]] = {}
        self.sims: dict[str, Sim] = {}
        self.by_iccid: dict[str, str] = {}
        self._rows: dict[str, list[Purchase]] = {}

    def number(self) -> int:
        """The next number, never given out before."""
        self._last = max(self._last + 1, int((self.world.clock().timestamp() - _EPOCH) * 1000))
        return self._last

    def stamp(self) -> str:
        """The moment, as it is kept in the books."""
        return self.world.clock().isoformat()

    def charge(self, amount: Decimal) -> bool:
        """Take money from the wallet; False and nothing taken when it does not hold enough."""
        if amount > self.balance:
            return False
        self.balance -= amount
        return True

    def credit(self, amount: Decimal) -> None:
        """Give money back."""
        self.balance += amount

    def open(
        self,
        package: Package,
        *,
        order_id: str,
        number: int,
        state: str,
        unit_cost: Decimal,
        reference: str | None = None,
        quantity: int = 1,
    ) -> Order:
        """Book an order in a state of the purchase log; the wallet is the caller's business."""
        order = Order(
            order_id, number, reference, package.package_id, package.title, package.kind, quantity, unit_cost,
            package.currency, self.stamp(), state,
        )  # fmt: skip
        self.orders[order_id] = order
        if reference:
            self.by_reference.setdefault(reference, []).append(order_id)
        book = self.world.purchases.add
        self._rows[order_id] = [book(self._row(order)) for _ in range(quantity)]
        return order

    def _row(self, order: Order) -> Purchase:
        return Purchase(
            self.slug, order.reference, order.order_id, order.package_id, None, order.state, order.unit_cost,
            order.currency, order.kind,
        )  # fmt: skip

    def issue(self, order: Order, package: Package, iccids: Iterable[str] = (), count: int | None = None) -> list[Sim]:
        """Make the eSIMs of an order, or the next `count` of them, reusing the given ICCIDs; book them as delivered."""
        spare = list(iccids)
        rows = self._rows[order.order_id]
        made = []
        for row in [row for row in rows if row.iccid is None][:count]:
            number = self.number()
            iccid = spare.pop() if spare else with_luhn(f"{self._prefix}{number:011d}"[:18])
            sim = Sim(str(number), iccid, self.matching_id(number), self._host, order.order_id, self.stamp())
            self._add_bundle(sim, order, package)
            self.sims[sim.sim_id] = sim
            self.by_iccid[iccid] = sim.sim_id
            order.sims.append(sim.sim_id)
            row.iccid, row.state = iccid, "delivered"
            made.append(sim)
        if all(row.iccid is not None for row in rows):
            order.state = "delivered"
        return made

    def matching_id(self, number: int) -> str:
        """The matching id of the eSIM with this number."""
        return token(self.world.config.seed, self.slug, number, size=20)

    def extend(self, order: Order, package: Package, sim: Sim) -> Bundle:
        """Put one unit of an order on an eSIM that exists."""
        bundle = self._add_bundle(sim, order, package)
        order.sims.append(sim.sim_id)
        rows = self._rows[order.order_id]
        row = next(row for row in rows if row.iccid is None)
        row.iccid, row.state, row.kind = sim.iccid, "delivered", "topup"
        bundle.kind = "topup"
        if all(row.iccid is not None for row in rows):
            order.kind, order.state = "topup", "delivered"
        return bundle

    def take_back(self, order: Order, iccid: str) -> None:
        """Return one unit from an eSIM into the inventory."""
        row = next(row for row in self._rows[order.order_id] if row.iccid == iccid)
        row.iccid, row.state, order.state = None, "inventory", "inventory"

    def unassigned(self, order: Order) -> int:
        """How many units of an order wait in the inventory."""
        return sum(row.iccid is None and row.state == "inventory" for row in self._rows[order.order_id])

    def settle(self, order: Order, state: str, count: int) -> None:
        """Change the state of up to `count` units that have no eSIM."""
        for row in [row for row in self._rows[order.order_id] if row.iccid is None and row.state == "inventory"][
            :count
        ]:
            row.state = state

    def _add_bundle(self, sim: Sim, order: Order, package: Package) -> Bundle:
        bundle_id = uuid_text(self.slug, order.order_id, sim.sim_id, len(sim.bundles))
        bundle = Bundle(
            bundle_id, order.order_id, package.package_id, package.title, package.data_bytes, package.days,
            self.stamp(), order.kind,
        )  # fmt: skip
        sim.bundles.append(bundle)
        return bundle

    def mark(self, order: Order, state: str, iccid: str | None = None) -> None:
        """Change the state of an order's units, or of one unit by its ICCID."""
        rows = self._rows[order.order_id]
        for row in rows:
            if iccid is None or row.iccid == iccid:
                row.state = state
        if all(row.state == state for row in rows):
            order.state = state

    def reprice(self, order: Order, unit_cost: Decimal) -> None:
        """Change what a unit of an order costs, when the provider charges the price of a later moment."""
        order.unit_cost = unit_cost
        for row in self._rows[order.order_id]:
            row.cost = unit_cost

    def sim_of_iccid(self, iccid: str) -> Sim | None:
        """The eSIM that carries this ICCID now."""
        sim_id = self.by_iccid.get(iccid)
        return None if sim_id is None else self.sims[sim_id]

    def sims_of(self, order: Order) -> list[Sim]:
        """The eSIMs of an order."""
        return [self.sims[sim_id] for sim_id in order.sims]

    def dump(self) -> dict[str, Any]:
        """The books as plain data."""
        return {
            "balance": str(self.balance),
            "last": self._last,
            "orders": [asdict(order) | {"unit_cost": str(order.unit_cost)} for order in self.orders.values()],
            "sims": [asdict(sim) for sim in self.sims.values()],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over the books of a state file; the purchase log was loaded before."""
        self.start()
        self.balance = Decimal(data["balance"])
        self._last = int(data["last"])
        for row in data["orders"]:
            order = Order(**{**row, "unit_cost": Decimal(row["unit_cost"])})
            self.orders[order.order_id] = order
            self._rows[order.order_id] = []
            if order.reference:
                self.by_reference.setdefault(order.reference, []).append(order.order_id)
        for row in data["sims"]:
            sim = Sim(**{**row, "bundles": [Bundle(**bundle) for bundle in row["bundles"]]})
            self.sims[sim.sim_id] = sim
            self.by_iccid[sim.iccid] = sim.sim_id
        for purchase in self.world.purchases.find(self.slug):
            self._rows.setdefault(purchase.order_id, []).append(purchase)


class Books:
    """The ledgers of all providers of one sandbox, for the control routes."""

    def __init__(self, _world: World) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.listeners: dict[str, Callable[[Sim, Bundle, int, int], None]] = {}

    def open(self, ledger: Ledger) -> Ledger:
        """Add a ledger."""
        self.ledgers[ledger.slug] = ledger
        return ledger
