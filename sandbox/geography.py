"""Countries and regions the generated catalogues cover: ISO codes, English names, zone and price tier.

Tiers run from 1 (data is cheap) to 6 (dear). A sandbox table of its own, so that nothing of the platform is imported.
"""

from dataclasses import dataclass
from functools import cache

_TABLE = """
Europe
AL ALB 2 Albania;AD AND 4 Andorra;AT AUT 1 Austria;BY BLR 4 Belarus;BE BEL 1 Belgium;BA BIH 2 Bosnia and Herzegovina
BG BGR 1 Bulgaria;HR HRV 1 Croatia;CY CYP 1 Cyprus;CZ CZE 1 Czechia;DK DNK 1 Denmark;EE EST 1 Estonia
FO FRO 3 Faroe Islands;FI FIN 1 Finland;FR FRA 1 France;DE DEU 1 Germany;GI GIB 2 Gibraltar;GR GRC 1 Greece
GG GGY 2 Guernsey;HU HUN 1 Hungary;IS ISL 2 Iceland;IE IRL 1 Ireland;IM IMN 2 Isle of Man;IT ITA 1 Italy
JE JEY 2 Jersey;XK XKX 3 Kosovo;LV LVA 1 Latvia;LI LIE 1 Liechtenstein;LT LTU 1 Lithuania;LU LUX 1 Luxembourg
MT MLT 1 Malta;MD MDA 2 Moldova;MC MCO 3 Monaco;ME MNE 2 Montenegro;NL NLD 1 Netherlands;MK MKD 2 North Macedonia
NO NOR 1 Norway;PL POL 1 Poland;PT PRT 1 Portugal;RO ROU 1 Romania;RU RUS 2 Russia;SM SMR 2 San Marino
RS SRB 2 Serbia;SK SVK 1 Slovakia;SI SVN 1 Slovenia;ES ESP 1 Spain;SE SWE 1 Sweden;CH CHE 1 Switzerland
UA UKR 2 Ukraine;GB GBR 1 United Kingdom;AX ALA 2 Aland Islands
Asia
AF AFG 5 Afghanistan;BD BGD 2 Bangladesh;BT BTN 6 Bhutan;BN BRN 3 Brunei;KH KHM 1 Cambodia;CN CHN 1 China
HK HKG 1 Hong Kong;IN IND 1 India;ID IDN 1 Indonesia;JP JPN 1 Japan;KZ KAZ 2 Kazakhstan;KG KGZ 2 Kyrgyzstan
LA LAO 2 Laos;MO MAC 1 Macao;MY MYS 1 Malaysia;MV MDV 4 Maldives;MN MNG 3 Mongolia;MM MMR 4 Myanmar
NP NPL 3 Nepal;PK PAK 2 Pakistan;PH PHL 1 Philippines;SG SGP 1 Singapore;KR KOR 1 South Korea;LK LKA 2 Sri Lanka
TW TWN 1 Taiwan;TJ TJK 3 Tajikistan;TH THA 1 Thailand;TL TLS 5 Timor-Leste;UZ UZB 2 Uzbekistan;VN VNM 1 Vietnam
AM ARM 2 Armenia;AZ AZE 3 Azerbaijan;GE GEO 2 Georgia
Middle East
BH BHR 2 Bahrain;EG EGY 2 Egypt;IQ IRQ 3 Iraq;IL ISR 1 Israel;JO JOR 2 Jordan;KW KWT 2 Kuwait;LB LBN 5 Lebanon
OM OMN 3 Oman;PS PSE 4 Palestine;QA QAT 2 Qatar;SA SAU 2 Saudi Arabia;TR TUR 1 Turkey;AE ARE 2 United Arab Emirates
YE YEM 5 Yemen
Africa
DZ DZA 3 Algeria;AO AGO 5 Angola;BJ BEN 4 Benin;BW BWA 4 Botswana;BF BFA 4 Burkina Faso;BI BDI 6 Burundi
CM CMR 4 Cameroon;CV CPV 4 Cape Verde;CF CAF 5 Central African Republic;TD TCD 4 Chad;KM COM 6 Comoros;CG COG 4 Congo
CD COD 4 DR Congo;CI CIV 4 Ivory Coast;DJ DJI 6 Djibouti;GQ GNQ 6 Equatorial Guinea;SZ SWZ 4 Eswatini
ET ETH 5 Ethiopia;GA GAB 4 Gabon;GM GMB 5 Gambia;GH GHA 3 Ghana;GN GIN 4 Guinea;GW GNB 5 Guinea-Bissau
KE KEN 3 Kenya;LS LSO 4 Lesotho;LR LBR 4 Liberia;MG MDG 4 Madagascar;MW MWI 4 Malawi;ML MLI 4 Mali
MR MRT 5 Mauritania;MU MUS 3 Mauritius;YT MYT 3 Mayotte;MA MAR 2 Morocco;MZ MOZ 4 Mozambique;NA NAM 5 Namibia
NE NER 4 Niger;NG NGA 3 Nigeria;RE REU 2 Reunion;RW RWA 4 Rwanda;ST STP 6 Sao Tome and Principe;SN SEN 4 Senegal
SC SYC 5 Seychelles;SL SLE 4 Sierra Leone;SO SOM 5 Somalia;ZA ZAF 2 South Africa;SS SSD 6 South Sudan;SD SDN 5 Sudan
TZ TZA 3 Tanzania;TG TGO 5 Togo;TN TUN 3 Tunisia;UG UGA 3 Uganda;ZM ZMB 4 Zambia;ZW ZWE 5 Zimbabwe
North America
CA CAN 2 Canada;US USA 1 United States;MX MEX 2 Mexico;PR PRI 2 Puerto Rico;GL GRL 5 Greenland;BM BMU 5 Bermuda
GU GUM 3 Guam
LATAM
AR ARG 2 Argentina;BO BOL 3 Bolivia;BR BRA 2 Brazil;CL CHL 2 Chile;CO COL 2 Colombia;CR CRI 2 Costa Rica
EC ECU 2 Ecuador;SV SLV 2 El Salvador;GF GUF 3 French Guiana;GT GTM 2 Guatemala;GY GUY 4 Guyana;HN HND 3 Honduras
NI NIC 2 Nicaragua;PA PAN 2 Panama;PY PRY 3 Paraguay;PE PER 2 Peru;SR SUR 4 Suriname;UY URY 2 Uruguay
VE VEN 4 Venezuela;BZ BLZ 4 Belize
Caribbean
AI AIA 4 Anguilla;AG ATG 4 Antigua and Barbuda;AW ABW 4 Aruba;BS BHS 5 Bahamas;BB BRB 4 Barbados
VG VGB 4 British Virgin Islands;KY CYM 4 Cayman Islands;CW CUW 4 Curacao;DM DMA 4 Dominica;DO DOM 3 Dominican Republic
GD GRD 4 Grenada;GP GLP 2 Guadeloupe;HT HTI 5 Haiti;JM JAM 3 Jamaica;MQ MTQ 2 Martinique;MS MSR 5 Montserrat
KN KNA 4 Saint Kitts and Nevis;LC LCA 4 Saint Lucia;VC VCT 4 Saint Vincent and the Grenadines
TT TTO 4 Trinidad and Tobago;TC TCA 4 Turks and Caicos Islands;CU CUB 6 Cuba
Oceania
AU AUS 1 Australia;FJ FJI 4 Fiji;NZ NZL 1 New Zealand;PG PNG 6 Papua New Guinea;WS WSM 5 Samoa;TO TON 5 Tonga
VU VUT 5 Vanuatu;PF PYF 5 French Polynesia;NR NRU 6 Nauru;NC NCL 5 New Caledonia
"""


def _codes(text: str) -> list[str]:
    return text.split()


POPULAR = _codes(
    "JP US TH TR GB FR IT ES KR DE AE ID VN CN HK SG MY TW AU CA MX IN PH GR PT NL CH AT EG SA BR IL MA ZA NZ KH HR PL "
    "IE SE"
)

ZONES = ("Europe", "Asia", "Middle East", "Africa", "North America", "LATAM", "Caribbean", "Oceania")

_EUROPE = _codes(
    "AT BE BG HR CY CZ DK EE FI FR DE GR HU IS IE IT LV LI LT LU MT NL NO PL PT RO SK SI ES SE CH GB TR UA"
)

_REGIONS: dict[str, tuple[str, str, list[str]]] = {
    "europe": ("Europe", "Europe", _EUROPE),
    "europe-plus": ("Europe Plus", "Europe", [*_EUROPE, *_codes("AL BA MK ME RS MD GI IM JE GG XK")]),
    "balkans": ("Balkans", "Europe", _codes("AL BA BG GR HR ME MK RO RS SI XK")),
    "asia": ("Asia", "Asia", _codes("CN HK ID IN JP KH KR LA LK MO MY PH PK SG TH TW VN")),
    "southeast-asia": ("Southeast Asia", "Asia", _codes("ID KH LA MY PH SG TH VN")),
    "china-hong-kong-macao": ("China, Hong Kong and Macao", "Asia", _codes("CN HK MO")),
    "middle-east": ("Middle East", "Middle East", _codes("AE BH EG IL IQ JO KW OM QA SA TR")),
    "gulf": ("Gulf States", "Middle East", _codes("AE BH KW OM QA SA")),
    "africa": (
        "Africa", "Africa",
        _codes("BW CD CG CI CM EG ET GA GH KE LR MA MG ML MU MW MZ NE NG RE RW SC SN TN TZ UG ZA ZM"),
    ),
    "north-america": ("North America", "North America", _codes("CA MX US")),
    "latin-america": (
        "Latin America", "LATAM", _codes("AR BO BR CL CO CR EC GT HN MX NI PA PE PY SV UY"),
    ),
    "caribbean": ("Caribbean", "Caribbean", _codes("AG AI AW BB BS CW DM DO GD JM KN KY LC TC TT VC VG")),
    "oceania": ("Oceania", "Oceania", _codes("AU FJ NZ PG TO VU WS")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Country:
    """One country or territory."""

    iso: str
    iso3: str
    name: str
    zone: str
    tier: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a plan works: a country, a region or the world; `members` are ISO codes in order."""

    code: str
    name: str
    kind: str
    zone: str
    tier: int
    members: tuple[str, ...]
    rank: int


@cache
def countries() -> dict[str, Country]:
    """All countries by ISO code, popular ones first."""
    found: dict[str, Country] = {}
    zone = ""
    for line in _TABLE.strip().splitlines():
        if line in ZONES:
            zone = line
            continue
        for entry in line.split(";"):
            iso, iso3, tier, name = entry.split(" ", 3)
            found[iso] = Country(iso, iso3, name, zone, int(tier))
    return {iso: found[iso] for iso in [*POPULAR, *(code for code in sorted(found) if code not in POPULAR)]}


@cache
def destinations() -> tuple[Destination, ...]:
    """Everything a plan can be for; the rank says how early a small catalogue carries it."""
    table = countries()
    single = [
        Destination(c.iso, c.name, "country", c.zone, c.tier, (c.iso,), rank) for rank, c in enumerate(table.values())
    ]
    regional = [
        Destination(code, name, "region", zone, 3, tuple(sorted(members)), 3 * rank)
        for rank, (code, (name, zone, members)) in enumerate(_REGIONS.items())
    ]
    wide = tuple(sorted(c.iso for c in table.values() if c.tier <= 4))
    worldwide = Destination("global", "Global", "global", "Global", 5, wide, 4)
    return (*single, *regional, worldwide)
