"""The shop's own definitions and one job more, which uses the native libraries that they import."""

import json
import os
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl

import pipelines.definitions

_ROWS = 400_000  # enough for every library to give work to threads of its own


@dg.op
def compute(context: dg.OpExecutionContext) -> None:
    """Group the same rows by polars, by its streaming engine and by DuckDB, on files and in memory."""
    file = Path(context.run_tags["answer"]).with_suffix(".parquet")
    offers = pl.DataFrame({"offer": range(_ROWS)}).with_columns(
        (pl.col("offer") % 97).alias("package"), (pl.col("offer") * 7 % 1009).alias("cost")
    )
    offers.write_parquet(file)
    cheapest = pl.col("cost").min()
    by_polars = offers.group_by("package").agg(cheapest).sort("package")
    by_stream = pl.scan_parquet(file).group_by("package").agg(cheapest).sort("package").collect(engine="streaming")
    with duckdb.connect(config={"threads": 4}) as connection:
        query = f"select package, min(cost) as cost from '{file}' group by all order by all"
        by_duckdb = connection.execute(query).pl()
    seen = {"parent": os.getppid(), "packages": len(by_polars)}
    seen["agree"] = by_polars.equals(by_stream) and by_polars.rows() == by_duckdb.rows()
    Path(context.run_tags["answer"]).write_text(json.dumps(seen))


@dg.job(executor_def=dg.in_process_executor)
def compute_job() -> None:
    compute()


defs = dg.Definitions.merge(pipelines.definitions.defs, dg.Definitions(jobs=[compute_job]))
