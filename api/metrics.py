"""What Prometheus may read: counts and times by route, never a person, an order or an address.

Each app has a registry of its own. With several workers (`PROMETHEUS_MULTIPROC_DIR` set) the workers' figures are
added up by prometheus-client's files; the catalogue gauges are then the answering worker's own.
"""

import os
from collections.abc import Iterable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.snapshot import Shelf
from resources.db.watch_figures import StoreFigures

_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# The order store as operations watch it; Dagster's daemon tells them the same, as long as it is alive.
_STORE_HELP = {
    "waiting_units": "Paid units that are due and that nobody works on",
    "waiting_seconds": "Seconds the oldest of them has waited",
    "abandoned_units": "Units whose worker is gone, of the waiting ones",
    "attention_units": "Units that need a person",
    "unknown_purchases": "Purchases whose answer was lost and not found yet",
    "open_purchase_seconds": "Age of the oldest purchase without an end",
    "due_refunds": "Refunds that are due and not paid",
    "refund_seconds": "Seconds the oldest of them has waited",
    "due_notices": "Mails and Slack notes that are due and not sent",
    "notice_seconds": "Seconds the oldest of them has waited",
    "provider_events": "Provider events nobody has worked yet",
    "open_circuits": "Providers that rest after failures",
    "open_alerts": "Alerts that are not over",
    "watch_age_seconds": "Seconds since the watch of operations last looked; -1 before its first time",
}


class Metrics(Collector):
    """The figures of one app; `ready_answers` is a plain integer because the hot path counts in it."""

    def __init__(self, shelf: Shelf) -> None:
        self.registry = CollectorRegistry()
        self.ready_answers = 0
        self.streams_open = 0
        self.store: StoreFigures | None = None  # as of the last scrape; None while the database does not answer
        self._shelf = shelf
        self.requests = Counter(
            "numnaroad_http_requests", "Requests by route", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "numnaroad_http_request_seconds", "Time to answer", ["route"], buckets=_BUCKETS, registry=self.registry
        )
        self.webhooks = Counter(
            "numnaroad_webhook_events", "Webhook events", ["source", "type", "result"], registry=self.registry
        )
        self.checkouts = Counter("numnaroad_checkouts", "Checkout attempts", ["result"], registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Read what is counted outside prometheus-client."""
        snapshot = self._shelf.current.snapshot
        yield CounterMetricFamily(
            "numnaroad_ready_answers", "Catalogue answers given from ready bytes", value=self.ready_answers
        )
        yield GaugeMetricFamily("numnaroad_event_streams_open", "Order event streams open", value=self.streams_open)
        yield GaugeMetricFamily("numnaroad_catalogue_version", "Catalogue version served", value=snapshot.version)
        yield GaugeMetricFamily("numnaroad_catalogue_packages", "Packages on sale", value=len(snapshot.by_id))
        if snapshot.published_at:
            age = (datetime.now(UTC) - snapshot.published_at).total_seconds()
            yield GaugeMetricFamily("numnaroad_catalogue_age_seconds", "Age of the served version", value=age)
        yield GaugeMetricFamily("numnaroad_store_up", "Whether the order store answers", value=self.store is not None)
        if self.store is not None:
            for name, value in self.store.items().items():
                yield GaugeMetricFamily(f"numnaroad_store_{name}", _STORE_HELP[name], value=value)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus-client does not annotate it
        registry.register(self)
        return generate_latest(registry)
