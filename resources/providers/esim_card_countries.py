"""English country names as providers write them -> ISO 3166-1 alpha-2, for catalogues that name no codes.

CLDR's English territory names (through Babel) and the spellings met in real catalogues; an unknown name is None, never
the nearest match.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from babel import Locale

from esim.geography import COUNTRIES

_FLAG = re.compile(r"flagcdn\.com/[^/]+/([a-z]{2})\.(?:png|svg|webp)", re.IGNORECASE)
_WORDS = re.compile(r"[^a-z0-9]+")

# Spellings met in real catalogues (2025-2026) that are not CLDR's.
_ALSO: Mapping[str, str] = {
    "america": "US",
    "bosnia herzegovina": "BA",
    "brunei darussalam": "BN",
    "burma": "MM",
    "cabo verde": "CV",
    "congo": "CG",
    "congo dr": "CD",
    "congo drc": "CD",
    "congo republic": "CG",
    "cote d ivoire": "CI",
    "czech republic": "CZ",
    "democratic republic of congo": "CD",
    "democratic republic of the congo": "CD",
    "dominican": "DO",
    "dr congo": "CD",
    "east timor": "TL",
    "england": "GB",
    "great britain": "GB",
    "holland": "NL",
    "hong kong": "HK",
    "ivory coast": "CI",
    "korea": "KR",
    "lao": "LA",
    "macao": "MO",
    "macau": "MO",
    "macedonia": "MK",
    "myanmar": "MM",
    "palestine": "PS",
    "republic of congo": "CG",
    "republic of korea": "KR",
    "republic of the congo": "CG",
    "russian federation": "RU",
    "swaziland": "SZ",
    "syrian arab republic": "SY",
    "tanzania united republic of": "TZ",
    "turkey": "TR",
    "uae": "AE",
    "uk": "GB",
    "united states of america": "US",
    "united states virgin islands": "VI",
    "usa": "US",
    "vatican": "VA",
    "vatican city state": "VA",
    "viet nam": "VN",
    "virgin islands british": "VG",
    "virgin islands us": "VI",
}


def country_code(name: str) -> str | None:
    """Return the ISO code of the country called `name`, None when no country is called so."""
    return _codes().get(_plain(name[:100]))


def code_in_flag_address(address: str) -> str | None:
    """Return the ISO code in the address of a flag picture (flagcdn.com), None when there is none."""
    found = _FLAG.search(address[:300])
    code = found[1].upper() if found else ""
    return code if code in COUNTRIES else None


@lru_cache(maxsize=1)
def _codes() -> Mapping[str, str]:
    territories = Locale("en").territories
    names = {_plain(name): code for code, name in territories.items() if code in COUNTRIES}
    return {**names, **{_plain(name): code for name, code in _ALSO.items()}}


def _plain(name: str) -> str:
    """Return a name without accents, case, punctuation and articles; `&` is `and`, `Saint` is `St`."""
    letters = unicodedata.normalize("NFKD", name.replace("&", " and ").replace("\u2019", " ").replace("'", " "))
    ascii_letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    words = _WORDS.sub(" ", ascii_letters.casefold().replace(".", "")).split()
    return " ".join("st" if word == "saint" else word for word in words if word != "the")
