"""A believable wholesale catalogue from a seed: who sells what where, and at which cost.

seed → destinations and shapes → each provider's own choice, gaps and costs. The same seed gives the same catalogue.
Costs are whole US cents. Every provider is the cheapest somewhere: its level differs by zone, destination and size.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b, shake_128

from sandbox.geography import POPULAR, Destination, destinations

USUAL_COUNT = {"airalo": 3200, "esim_access": 2600, "esim_go": 4700, "mobimatter": 2100, "esim_card": 4900}

_PER_GB_CENTS = {1: 62, 2: 118, 3: 205, 4: 390, 5: 560, 6: 820}
_DATA_WEIGHT = {
    100: 170, 500: 590, 1000: 1000, 2000: 1830, 3000: 2600, 5000: 4050, 10000: 7300, 15000: 10100, 20000: 12600,
    30000: 17200, 50000: 25500,
}  # fmt: skip
_DAYS_WEIGHT = {1: 850, 3: 890, 5: 920, 7: 950, 10: 970, 15: 1000, 30: 1050, 60: 1140, 90: 1240, 180: 1480}
_UNLIMITED_WEIGHT = {1: 2100, 3: 5000, 5: 7400, 7: 9400, 10: 12300, 15: 16300, 30: 25800}


@dataclass(frozen=True, slots=True)
class Shape:
    """Size and term of a plan. `mb` counts 1000 to the GB and is 0 when unlimited, or the allowance of each day."""

    mb: int
    days: int
    kind: str = "sim"
    unlimited: bool = False
    daily: bool = False
    minutes: int = 0
    texts: int = 0

    @property
    def key(self) -> str:
        """A short name, unique among shapes."""
        size = "unlimited" if self.unlimited else f"{self.mb}mb" if self.mb < 1000 else f"{self.mb // 1000}gb"
        marks = ("-daily" if self.daily else "") + ("-voice" if self.minutes else "")
        return f"{size}-{self.days}d{marks}{'-topup' if self.kind == 'topup' else ''}"

    @property
    def size(self) -> str:
        """The size as a shop writes it."""
        if self.unlimited:
            return "Unlimited"
        return f"{self.mb} MB" if self.mb < 1000 else f"{self.mb // 1000} GB"


@dataclass(frozen=True, slots=True)
class Plan:
    """One provider's plan; `cents` is what we pay, `retail_cents` what the provider recommends."""

    provider: str
    destination: Destination
    coverage: tuple[str, ...]
    shape: Shape
    cents: int
    retail_cents: int

    @property
    def key(self) -> str:
        """Unique within the provider, stable for a seed."""
        return f"{self.destination.code.lower()}-{self.shape.key}"


_TO_60 = bytes(value * 61 // 256 for value in range(256))
_CORE = (
    (1000, 7),
    (3000, 30),
    (5000, 30),
    (10000, 30),
    (2000, 15),
    (20000, 30),
    (500, 1),
    (50000, 30),
    (1000, 3),
    (5000, 15),
)
_MORE = (
    (1000, 1), (1000, 30), (2000, 7), (2000, 30), (3000, 7), (3000, 15), (5000, 7), (10000, 15), (10000, 7),
    (20000, 15), (15000, 30), (30000, 30), (100, 7), (100, 1), (500, 7), (500, 3), (10000, 90), (20000, 90),
    (50000, 90), (50000, 180), (10000, 180), (1000, 15), (5000, 60), (20000, 60), (20000, 180), (3000, 5), (10000, 10),
)  # fmt: skip
_UNLIMITED_DAYS = (7, 10, 5, 15, 30, 3, 1)
_VOICE = ((5000, 30, 100, 100), (10000, 30, 200, 200), (20000, 30, 400, 400))
_TOPUPS = ((1000, 7), (3000, 30), (5000, 30), (10000, 30), (20000, 30))

_SELLS_UNLIMITED = {"airalo", "esim_go", "mobimatter", "esim_card"}
_SELLS_DAILY = {"esim_access", "mobimatter"}
_SELLS_VOICE = {"airalo", "mobimatter", "esim_card"}
_SELLS_TOPUPS = {"airalo", "esim_access", "mobimatter"}


@cache
def shapes(provider: str) -> tuple[Shape, ...]:
    """The shapes a provider deals in, the usual ones first."""
    core = [Shape(mb, days) for mb, days in _CORE]
    more = [Shape(mb, days) for mb, days in _MORE]
    unlimited = [Shape(0, days, unlimited=True) for days in _UNLIMITED_DAYS] if provider in _SELLS_UNLIMITED else []
    voice = [Shape(mb, d, minutes=m, texts=t) for mb, d, m, t in _VOICE] if provider in _SELLS_VOICE else []
    topups = [Shape(mb, days, kind="topup") for mb, days in _TOPUPS] if provider in _SELLS_TOPUPS else []
    daily: list[Shape] = []
    if provider in _SELLS_DAILY:
        terms = (1,) if provider == "esim_access" else (3, 5, 7, 10, 15, 30)
        daily = [Shape(mb, days, daily=True) for days in terms for mb in (1000, 2000, 500, 3000)]
    return (
        *core[:6],
        *topups,
        *unlimited[:3],
        *daily[:2],
        *core[6:],
        *more[:10],
        *unlimited[3:],
        *voice,
        *daily[2:],
        *more[10:],
    )


def _roll(low: int, high: int, *parts: object) -> int:
    """A repeatable number between low and high, both included."""
    text = ":".join(map(str, parts)).encode()
    return low + int.from_bytes(blake2b(text, digest_size=6).digest()) % (high - low + 1)


def _per_gb(destination: Destination) -> int:
    if destination.kind == "country":
        return _PER_GB_CENTS[destination.tier]
    return {"Europe": 78, "Asia": 98, "North America": 112, "Global": 340}.get(destination.zone, 210)


def _shape_weight(shape: Shape) -> int:
    if shape.unlimited:
        return _UNLIMITED_WEIGHT[shape.days] * 1000
    base = _DATA_WEIGHT[shape.mb] * _DAYS_WEIGHT[shape.days]
    if shape.daily:
        base = base * shape.days * 820 // 1000
    return base + shape.minutes * 9_000


@cache
def _level(seed: int, provider: str, destination: Destination) -> int:
    zone = _roll(860, 1150, seed, "zone", provider, destination.zone)
    return zone * _roll(900, 1100, seed, "place", provider, destination.code)


@cache
def _terrain(seed: int, code: str) -> int:
    return _roll(850, 1200, seed, "terrain", code)


@cache
def _markup(seed: int, provider: str, code: str) -> int:
    return _roll(1550, 2300, seed, "markup", provider, code)


def _cost(seed: int, provider: str, destination: Destination, shape: Shape) -> tuple[int, int]:
    level = _level(seed, provider, destination) * _roll(940, 1070, seed, "shape", provider, destination.code, shape.key)
    cents = _per_gb(destination) * _shape_weight(shape) // 1000 * _terrain(seed, destination.code) * level // 1000**5
    cents = max(cents, 24)
    markup = _markup(seed, provider, destination.code)
    retail = -(-cents * markup // 1000 // 50) * 50
    return cents, max(retail, 100)


def _covers(seed: int, provider: str, destination: Destination) -> tuple[str, ...]:
    """The members this provider really covers: empty for a gap, a little less than all for some regions."""
    if destination.kind == "country":
        gap = destination.code not in POPULAR and _roll(0, 999, seed, "gap", provider, destination.code) < 70
        return () if gap else destination.members
    if _roll(0, 999, seed, "region", provider, destination.code) < 550:
        return destination.members
    return tuple(
        iso
        for iso in destination.members
        if iso in POPULAR or _roll(0, 999, seed, "member", provider, destination.code, iso) >= 120
    )


@cache
def provider_plans(provider: str, seed: int, count: int | None = None) -> tuple[Plan, ...]:
    """The plans of one provider, by destination; `count` overrides its usual number."""
    wanted = USUAL_COUNT[provider] if count is None else count
    choice: list[tuple[int, str, str, Destination, tuple[str, ...], Shape]] = []
    keyed = [(rank * 10, shape.key, shape) for rank, shape in enumerate(shapes(provider))]
    for destination in destinations():
        coverage = _covers(seed, provider, destination)
        if not coverage:
            continue
        reach = 20 + min(destination.rank, 40)  # popular places get the rarer shapes too
        luck = _noise(seed, provider, destination.code, len(keyed))
        for (rank, key, shape), jitter in zip(keyed, luck, strict=True):
            choice.append(
                (rank * reach // 60 + destination.rank + jitter, destination.code, key, destination, coverage, shape)
            )
    choice.sort(key=lambda entry: entry[:3])
    kept = choice[:wanted]
    kept.sort(key=lambda entry: (entry[3].rank, *entry[1:3]))
    return tuple(
        Plan(provider, destination, coverage, shape, *_cost(seed, provider, destination, shape))
        for _, _, _, destination, coverage, shape in kept
    )


def _noise(seed: int, provider: str, code: str, count: int) -> bytes:
    """One repeatable small number per shape, so that providers choose differently."""
    return shake_128(f"{seed}:choice:{provider}:{code}".encode()).digest(count).translate(_TO_60)
