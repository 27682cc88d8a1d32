"""The hot path's plain counters as Prometheus metrics, rendered only when somebody scrapes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from indigo.backends.queue.spool import Spool
from indigo.features.models.service import Models
from indigo.gateway.admit import Capacity
from indigo.gateway.metrics import BUCKETS_US, Metrics

LABELS = ["operation", "model"]


class GatewayCollector(Collector):
    def __init__(self, metrics: Metrics, capacity: Capacity, spool: Spool, models: Models) -> None:
        self._metrics = metrics
        self._capacity = capacity
        self._spool = spool
        self._models = models

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._tokens()
        yield self._histogram("indigo_request_seconds", "From the whole request to the end of its answer.", "latency")
        yield self._histogram("indigo_first_byte_seconds", "From the whole request to the first byte.", "first_byte")
        yield from self._state()

    def _requests(self) -> Iterator[Metric]:
        admitted = CounterMetricFamily("indigo_requests", "Admitted requests by outcome.", labels=[*LABELS, "outcome"])
        for (operation, model), series in self._metrics.series.items():
            for outcome, count in series.outcomes.items():
                admitted.add_metric([operation, model, outcome], count)
        yield admitted
        refused = CounterMetricFamily(
            "indigo_refused_requests", "Requests refused before or after admission.", labels=["operation", "status"]
        )
        for (operation, status), count in self._metrics.refused.items():
            refused.add_metric([operation, str(status)], count)
        yield refused

    def _tokens(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily("indigo_tokens", "Tokens by kind.", labels=[*LABELS, "kind"])
        for (operation, model), series in self._metrics.series.items():
            tokens.add_metric([operation, model, "prompt"], series.prompt)
            tokens.add_metric([operation, model, "cached"], series.cached)
            tokens.add_metric([operation, model, "completion"], series.completion)
        yield tokens

    def _histogram(self, name: str, text: str, field: str) -> Metric:
        family = HistogramMetricFamily(name, text, labels=LABELS)
        for (operation, model), series in self._metrics.series.items():
            counts: Sequence[int] = getattr(series, field)
            total = series.latency_sum_us / 1e6 if field == "latency" else series.first_byte_sum_us / 1e6
            family.add_metric([operation, model], _cumulative(counts), total)
        return family

    def _state(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("indigo_requests_in_flight", "Admitted and not yet ended.", self._capacity.in_flight)
        yield GaugeMetricFamily("indigo_spool_bytes", "What the usage spool takes on disk.", self._spool.bytes_used)
        endpoints = GaugeMetricFamily(
            "indigo_endpoint_healthy", "1 where an endpoint is healthy.", labels=["provider", "endpoint"]
        )
        for endpoint in self._models.status().endpoints:
            endpoints.add_metric([endpoint.provider, endpoint.id], float(endpoint.state == "healthy"))
        yield endpoints


def _cumulative(counts: Sequence[int]) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(BUCKETS_US, counts, strict=False):
        total += count
        buckets.append((str(bound / 1e6), total))
    buckets.append(("+Inf", total + counts[-1]))
    return buckets
