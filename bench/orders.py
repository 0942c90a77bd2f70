"""Measure the order path on a whole running platform: `make bench-orders` prints each figure beside its target."""

import sys
import time

from bench.order_shop import CpuShares, bench_shop

DELIVERED = "select count(*) from esims where status = 'delivered'"


def throughput(latency_ms: int, count: int) -> None:
    with bench_shop(latency_ms, parts=("sandbox", "api", "code", "daemon")) as shop:
        print("packages", len(shop.packages))
        shop.place_paid(16)  # a drain comes up
        shop.wait_until(DELIVERED, 16, 60)
        with CpuShares(shop) as shares:
            started = time.monotonic()
            shop.place_paid(count)
            placed = time.monotonic()
            done = shop.wait_until(DELIVERED, 16 + count, 120)
            took = time.monotonic() - placed
        print(
            f"latency {latency_ms} ms: {count} placed in {placed - started:.1f} s; delivered {done} in {took:.1f} s: {count / took:.0f}/s"
        )
        print(shares)
        before = time.monotonic()
        print("settled", shop.settle(), f"{time.monotonic() - before:.1f} s")
        with shop.engine.connect() as conn:
            from sqlalchemy import text

            for row in conn.execute(
                text(
                    "select provider, state, error_type, count(*), avg(latency_ms)::int from purchase_attempts group by 1,2,3"
                )
            ):
                print(row)
            for row in conn.execute(text("select drain_id, capacity, started_at, ended_at from drains")):
                print(row)


if __name__ == "__main__":
    throughput(int(sys.argv[1]), int(sys.argv[2]))
