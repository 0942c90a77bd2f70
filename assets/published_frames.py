"""The store's tables as frames, and frames as the store's CSV: what publishing reads, compares and writes."""

from io import BytesIO

import polars as pl

from assets.best_price import PACKAGES
from resources.db.catalogue_store import NULL, OFFER_COLUMNS, PACKAGE_COLUMNS

_SEPARATOR = "\x1f"
_BOOLEANS = ("is_best_price", "is_enabled", "auto_mode", "on_offer", "supports_top_up", "on_sale")
_LISTS = ("coverage", "networks")
STORED_OFFERS: dict[str, pl.DataType] = {
    "offer_id": pl.String(),
    "provider": pl.String(),
    "provider_package_id": pl.String(),
    "package_id": pl.String(),
    "name": pl.String(),
    "kind": pl.String(),
    "coverage_key": pl.String(),
    "allowance": pl.String(),
    "data_mb": pl.Int64(),
    "validity_days": pl.Int64(),
    "cost_micros": pl.Int64(),
    "cost_currency": pl.String(),
    "landed_micros": pl.Int64(),
    "min_retail_micros": pl.Int64(),
    "stock": pl.Int64(),
    "order_hints": pl.String(),
    "is_best_price": pl.Boolean(),
    "is_enabled": pl.Boolean(),
    "auto_mode": pl.Boolean(),
    "on_offer": pl.Boolean(),
    "excluded_reason": pl.String(),
}
# Here lists are joined texts: they compare quickly and as PostgreSQL hands them out.
STORED_PACKAGES: dict[str, pl.DataType] = {
    **{name: pl.String() if name in _LISTS else kind for name, kind in PACKAGES.items()},
    "version": pl.Int64(),
}


def offers_from_csv(csv: bytes) -> pl.DataFrame:
    """Return the store's offers as a frame of `STORED_OFFERS`."""
    return _from_csv(csv, STORED_OFFERS)


def packages_from_csv(csv: bytes) -> pl.DataFrame:
    """Return the store's packages as a frame of `STORED_PACKAGES`."""
    return _from_csv(csv, STORED_PACKAGES)


def offers_to_csv(offers: pl.DataFrame) -> bytes:
    """Return offers (columns of `STORED_OFFERS`) as the CSV the store takes."""
    whole, part = pl.col("cost_micros") // 1_000_000, pl.col("cost_micros") % 1_000_000
    cost = pl.concat_str(whole, pl.lit("."), part.cast(pl.String).str.zfill(6))
    return _to_csv(offers.with_columns(cost_amount=cost).select(OFFER_COLUMNS))


def packages_to_csv(packages: pl.DataFrame) -> bytes:
    """Return packages (columns of `STORED_PACKAGES`) as the CSV the store takes."""
    return _to_csv(packages.with_columns(_array(name) for name in _LISTS).select(PACKAGE_COLUMNS))


def as_stored(packages: pl.DataFrame) -> pl.DataFrame:
    """Return packages of `PACKAGES` with their lists joined, without `version`."""
    return packages.with_columns(pl.col(name).list.join(_SEPARATOR) for name in _LISTS)


def as_listed(packages: pl.DataFrame) -> pl.DataFrame:
    """Return stored packages with their lists as lists again."""
    none = pl.lit([], dtype=pl.List(pl.String))
    split = {name: pl.col(name).str.split(_SEPARATOR) for name in _LISTS}
    return packages.with_columns(**{n: pl.when(pl.col(n) == "").then(none).otherwise(e) for n, e in split.items()})


def changed_rows(new: pl.DataFrame, old: pl.DataFrame, key: str, columns: list[str]) -> pl.DataFrame:
    """Return the rows of `new` that are not in `old` or differ in one of `columns`."""
    before = old.select(key, *(pl.col(name).alias(f"{name}__old") for name in columns), __known=pl.lit(True))
    joined = new.join(before, on=key, how="left", maintain_order="left")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}__old")) for name in columns)
    return joined.filter(pl.col("__known").is_null() | differs).select(new.columns)


def _array(name: str) -> pl.Expr:
    """Return a joined list as an array literal with every element quoted."""
    escaped = pl.col(name).str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)
    quoted = pl.concat_str(pl.lit('{"'), escaped.str.replace_all(_SEPARATOR, '","', literal=True), pl.lit('"}'))
    return pl.when(pl.col(name) == "").then(pl.lit("{}")).otherwise(quoted).alias(name)


def _from_csv(csv: bytes, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    read = {name: pl.Int8() if name in _BOOLEANS else kind for name, kind in schema.items()}
    frame = pl.read_csv(BytesIO(csv), schema=read, null_values=[NULL], empty_string_is_null=False)
    return frame.cast({name: pl.Boolean() for name in _BOOLEANS if name in schema})


def _to_csv(frame: pl.DataFrame) -> bytes:
    out = BytesIO()
    frame.write_csv(out, null_value=NULL)
    return out.getvalue()
