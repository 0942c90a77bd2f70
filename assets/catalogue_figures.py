"""What operators see of the catalogue in Dagster: figures, samples, column schemas and a plot, as metadata."""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import dagster as dg
import polars as pl

from assets.catalogue_sync import Received
from assets.publishing import PricedCatalogue

Metadata = dict[str, Any]
_SAMPLE = 10


def table_schema(columns: Mapping[str, pl.DataType], notes: Mapping[str, str], grain: str) -> dg.TableSchema:
    """Return a table's columns, types and notes as Dagster shows them."""
    return dg.TableSchema(
        columns=[dg.TableColumn(name, str(kind), description=notes.get(name)) for name, kind in columns.items()],
        constraints=dg.TableConstraints(other=[grain]),
    )


def received_figures(received: Received) -> Metadata:
    """Return what an operator wants to know of one provider's sync."""
    got = received.download
    offers = received.offers
    figures: Metadata = {
        "dagster/row_count": 0 if offers is None else offers.height,
        "downloaded": got.offers.height,
        "rejected": got.rejects.height,
        "quarantined": received.quarantined,
        "held": received.held_reason or "no",
        "changed": received.changed,
        "repeats": got.repeats,
        "pages": got.pages,
        "seconds": round(got.seconds, 2),
    }
    if got.rejects.height:
        reasons = got.rejects.group_by("reason").agg(plans=pl.len(), example=pl.col("provider_package_id").first())
        figures["rejects"] = markdown(reasons.sort("plans", "reason", descending=[True, False]).head(_SAMPLE))
    if received.moves.height:
        figures["largest_moves"] = markdown(_largest_moves(received.moves))
    return figures


def unified_figures(unified: pl.DataFrame, unpriced: pl.DataFrame) -> Metadata:
    """Return the figures of the unified offers."""
    by_provider = unified.group_by("provider").agg(
        offers=pl.len(),
        packages=pl.col("package_id").n_unique(),
        quarantined=pl.col("excluded_reason").count(),
        unmapped_places=pl.col("unmapped").list.len().gt(0).sum(),
    )
    return {
        "dagster/row_count": unified.height,
        "without_a_rate": unpriced.height,
        "quarantined": unified.get_column("excluded_reason").count(),
        "providers": markdown(by_provider.sort("provider")),
    }


def price_figures(catalogue: PricedCatalogue) -> Metadata:
    """Return the figures of the best prices: wins per provider, the median margin, and the price distribution."""
    on_sale = catalogue.packages.filter("on_sale")
    won = on_sale.with_columns(provider=pl.col("best_offer_id").str.split(":").list.first())
    margin = pl.col("price_minor_usd") * 10_000 - pl.col("best_landed_micros")
    wins = won.group_by("provider").agg(wins=pl.len(), median_margin_usd=_dollars(margin.median()))
    reasons = catalogue.candidates.drop_nulls("reason").group_by("reason").agg(offers=pl.len())
    figures: Metadata = {
        "dagster/row_count": catalogue.packages.height,
        "on_sale": on_sale.height,
        "contested": on_sale.filter(pl.col("offer_count") > 1).height,
        "wins": markdown(wins.sort("wins", descending=True)),
    }
    if on_sale.height:
        figures["median_margin_usd"] = str(won.select(_dollars(margin.median())).item())
        figures["price_distribution"] = dg.MetadataValue.md(price_plot(won))
    if reasons.height:
        figures["may_not_win"] = markdown(reasons.sort("offers", descending=True).head(_SAMPLE))
    return figures


def price_plot(won: pl.DataFrame) -> str:
    """Return a histogram of retail prices by winning provider as a Markdown image; every figure is in the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = sorted(won.get_column("provider").unique())
    prices = [won.filter(pl.col("provider") == name).get_column("price_minor_usd") / 100 for name in names]
    steps = [0.99 * 1.25**step for step in range(34)]  # equal ratios: cheap and dear plans are both visible
    axes.hist([each.to_list() for each in prices], bins=steps, stacked=True, label=names)
    axes.set_xscale("log")
    axes.set(xlabel="retail price, USD (log scale)", ylabel="packages", title="Packages on sale by price and winner")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend()
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    return f"![price distribution](data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()})"


def markdown(frame: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Return a small frame as a Markdown table."""
    head = f"| {' | '.join(frame.columns)} |\n|{'---|' * frame.width}\n"
    rows = ("| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows())
    return dg.MetadataValue.md(head + "\n".join(rows))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")[:200]


def _largest_moves(moves: pl.DataFrame) -> pl.DataFrame:
    percent = (pl.col("usd") * 100 // pl.col("trusted_usd")) - 100
    moved = moves.with_columns(percent=percent).filter(pl.col("percent") != 0)
    return (
        moved.sort(pl.col("percent").abs(), descending=True)
        .head(_SAMPLE)
        .select(
            "offer_id",
            _dollars(pl.col("trusted_usd")).alias("was_usd"),
            _dollars(pl.col("usd")).alias("is_usd"),
            "percent",
        )
    )


def _dollars(micros: pl.Expr) -> pl.Expr:
    cents = micros.cast(pl.Int64) // 10_000
    return pl.concat_str(cents // 100, pl.lit("."), (cents % 100).cast(pl.String).str.zfill(2))
