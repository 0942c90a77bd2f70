"""The same order through Dagster as it comes: default sensor, queue and launcher, one run per order, as a yardstick.

`python -m bench.default_path` prints webhook received -> eSIM stored; `python -m bench.orders cold` is ours. The
module is also the code location that is measured.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
from sqlalchemy import text

from bench.order_shop import BenchShop, bench_shop
from bench.orders import one_by_one
from cli.processes import ROOT, leave_on_sigterm
from pipelines.drain import Drain, DrainLimits
from resources.order_operations import OrderOperations

ORDERS = 5
_INSTANCE = "storage:\n  postgres:\n    postgres_url: { env: DAGSTER_POSTGRES_URL }\ntelemetry: { enabled: false }\n"


@dg.op
def buy_one(operations: OrderOperations) -> None:
    """Work what is paid, as one run for one order would."""
    Drain(operations.tools(), DrainLimits(1, 0.0, 60.0)).run()


@dg.job
def one_order() -> None:
    """One run per order, each step in a process of its own."""
    buy_one()


@dg.sensor(job=one_order, default_status=dg.DefaultSensorStatus.RUNNING)
def paid_orders(operations: OrderOperations) -> Iterator[dg.RunRequest]:
    """Ask for a run for every paid order, whenever Dagster looks."""
    with operations.tools().engine.connect() as conn:
        for (order_id,) in conn.execute(text("select order_id from esims where status = 'queued'")):
            yield dg.RunRequest(run_key=str(order_id))


defs = dg.Definitions(jobs=[one_order], sensors=[paid_orders], resources={"operations": OrderOperations()})


def main() -> int:
    """Run a platform whose orders go the default way, and print how long each takes."""
    with bench_shop(0, parts=("sandbox", "api")) as shop, tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        (Path(home) / "dagster.yaml").write_text(_INSTANCE)
        environment = _environment(shop) | {"DAGSTER_HOME": home}
        command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "--module-name", "bench.default_path"]
        daemon = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        stack.callback(daemon.wait)
        stack.callback(daemon.terminate)
        shop.place(1, paid=True)
        if not shop.wait_until("select count(*) from esims where status = 'delivered'", 1, 180):
            sys.exit("the default path delivered nothing in three minutes")
        seconds = one_by_one(shop, ORDERS, pause=1.0)
    shown = ", ".join(f"{one:.1f}" for one in seconds)
    print(f"default sensor, default launcher, one run per order: {shown} s; median {statistics.median(seconds):.1f} s")
    return 0


def _environment(shop: BenchShop) -> dict[str, str]:
    from cli.run import prepare_environment

    return dict(os.environ) | dict(prepare_environment(shop.settings))


if __name__ == "__main__":
    leave_on_sigterm()
    sys.exit(main())
