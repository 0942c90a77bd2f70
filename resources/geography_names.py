"""English names of destinations, from the Unicode CLDR (Babel) with the forms customers search for."""

from collections.abc import Mapping
from functools import cache

from babel import Locale

from esim.geography import REGION_NAMES

# CLDR's names carry qualifiers that help diplomats, not travellers looking for a plan.
_USUAL: Mapping[str, str] = {
    "CD": "DR Congo",
    "CG": "Congo",
    "CI": "Ivory Coast",
    "HK": "Hong Kong",
    "MM": "Myanmar",
    "MO": "Macao",
    "PS": "Palestine",
    "TR": "Turkey",
    "VI": "US Virgin Islands",
}


@cache
def destination_name(code: str) -> str:
    """Return the English name of an ISO country code or region slug; the code itself where there is none."""
    if code in REGION_NAMES:
        return REGION_NAMES[code]
    return _USUAL.get(code) or _territories().get(code) or code


@cache
def _territories() -> Mapping[str, str]:
    return dict(Locale("en").territories)
