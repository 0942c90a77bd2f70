"""Countries, the regions they belong to, and how a provider's coverage codes become ISO 3166-1 alpha-2.

Codes that are no ISO country are mapped where that is certain and kept visible where it is not; none is dropped
silently. XK (Kosovo, user-assigned) is accepted because every provider sells it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

_REGION_MEMBERS: Mapping[str, str] = {
    "africa": (
        "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU "
        "MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TF TG TN TZ UG YT ZA ZM ZW"
    ),
    "asia": (
        "AF AM AZ BD BN BT CN CX CC GE HK ID IN IO JP KG KH KP KR KZ LA LK MM MN MO MV MY NP PH PK SG TH TJ "
        "TL TM TW UZ VN"
    ),
    "middle-east": "AE BH IL IQ IR JO KW LB OM PS QA SA SY YE",
    "europe": (
        "AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV "
        "MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM TR UA VA XK"
    ),
    "north-america": "BM CA GL MX PM US",
    "latin-america": "AR BO BR BZ CL CO CR EC FK GF GS GT GY HN NI PA PE PY SR SV UY VE",
    "caribbean": "AG AI AW BB BL BQ BS CU CW DM DO GD GP HT JM KN KY LC MF MQ MS PR SX TC TT VC VG VI",
    "oceania": "AS AU CK FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS",
    "antarctica": "AQ BV HM",
}
REGION_OF: Mapping[str, str] = {code: region for region, codes in _REGION_MEMBERS.items() for code in codes.split()}
COUNTRIES: frozenset[str] = frozenset(REGION_OF)

REGION_NAMES: Mapping[str, str] = {
    "africa": "Africa",
    "asia": "Asia",
    "asia-pacific": "Asia Pacific",
    "middle-east": "Middle East",
    "europe": "Europe",
    "north-america": "North America",
    "latin-america": "Latin America",
    "americas": "Americas",
    "caribbean": "Caribbean",
    "oceania": "Oceania",
    "antarctica": "Antarctica",
    "multi-region": "Several regions",
    "global": "Global",
}
_WIDER: tuple[tuple[str, frozenset[str]], ...] = (
    ("asia-pacific", frozenset({"asia", "oceania"})),
    ("americas", frozenset({"north-america", "latin-america", "caribbean"})),
)
_GLOBAL_COUNTRIES = 50
_GLOBAL_REGIONS = 4
_MAJORITY_PERCENT = 75
_LONGEST_KEPT = 4_000

# Provider codes that name exactly one ISO country under another spelling.
_ALIASES: Mapping[str, str] = {
    "USPR": "PR",
    "FR-GP": "GP",
    "GP-MG": "GP",
    "BQ-SA": "BQ",
    "BQ-SE": "BQ",
    "UK": "GB",
    "KOS": "XK",
    "RKS": "XK",
}
# Parts of a country: covered by the country when it is in the same list, and visible on their own otherwise.
_PARTS: Mapping[str, str] = {
    **dict.fromkeys(("GB-ENG", "GB-SCT", "GB-WLS", "GB-NIR"), "GB"),
    "US-HI": "US",
    "IC": "ES",
    "ES-XCI": "ES",
    "PT-AZ": "PT",
    "PT-MA": "PT",
}


class DestinationType(StrEnum):
    """What a destination is."""

    COUNTRY = "country"
    REGION = "region"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a plan is for: an ISO country code, a region slug, or `global`."""

    code: str
    type: DestinationType


@dataclass(frozen=True, slots=True)
class Coverage:
    """The ISO countries a plan covers, sorted, and the provider's codes that could not be mapped."""

    countries: tuple[str, ...]
    unmapped: tuple[str, ...] = ()


def coverage_from(codes: Iterable[str]) -> Coverage:
    """Return the coverage named by a provider's `codes` (any case, repeats allowed, `;`-joined pairs split)."""
    # Plans come in series of equal coverage: most lists were read before. Absurdly long ones are not kept.
    joined = ";".join(map(str, codes))
    return _coverage(joined) if len(joined) < _LONGEST_KEPT else _coverage.__wrapped__(joined)


@lru_cache(maxsize=2048)
def _coverage(joined: str) -> Coverage:
    countries: set[str] = set()
    others: set[str] = set()
    for code in (part.strip().upper() for part in joined.split(";")):
        mapped = _ALIASES.get(code, code)
        if mapped in COUNTRIES:
            countries.add(mapped)
        elif mapped:
            others.add(mapped)
    unmapped = {code for code in others if _PARTS.get(code) not in countries}
    return Coverage(tuple(sorted(countries)), tuple(sorted(unmapped)))


@lru_cache(maxsize=4096)
def destination_of(countries: tuple[str, ...]) -> Destination:
    """Return the destination a coverage is sold under: one country, the region most of it lies in, or global."""
    if len(countries) == 1:
        return Destination(countries[0], DestinationType.COUNTRY)
    regions = Counter(REGION_OF[code] for code in countries)
    if len(countries) >= _GLOBAL_COUNTRIES and len(regions) >= _GLOBAL_REGIONS:
        return Destination("global", DestinationType.GLOBAL)
    region, most = max(regions.items(), key=lambda item: (item[1], item[0]))
    if most * 100 >= _MAJORITY_PERCENT * len(countries):
        return Destination(region, DestinationType.REGION)
    for name, members in _WIDER:
        if sum(regions[member] for member in members) * 100 >= _MAJORITY_PERCENT * len(countries):
            return Destination(name, DestinationType.REGION)
    return Destination("multi-region", DestinationType.REGION)
