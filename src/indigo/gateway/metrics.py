"""Counters of the hot path: plain integers, read by whoever exposes them. Labels are few and known beforehand."""

from __future__ import annotations

from bisect import bisect_left

from indigo.gateway.ports import Tokens

BUCKETS_US = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000, 120_000_000,
)  # fmt: skip
"""Upper bounds in microseconds; one more bucket holds the rest."""


class Series:
    """Everything counted for one (operation, model)."""

    __slots__ = (
        "cached",
        "completion",
        "first_byte",
        "first_byte_sum_us",
        "latency",
        "latency_sum_us",
        "outcomes",
        "prompt",
    )

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.prompt = self.completion = self.cached = 0
        self.latency = [0] * (len(BUCKETS_US) + 1)
        self.first_byte = [0] * (len(BUCKETS_US) + 1)
        self.latency_sum_us = self.first_byte_sum_us = 0


class Metrics:
    __slots__ = ("refused", "retries", "series")

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Series] = {}
        self.refused: dict[tuple[str, int], int] = {}
        """Requests that were not admitted, by operation and status."""
        self.retries = 0

    def closed(self, operation: str, model: str, outcome: str, tokens: Tokens, latency_us: int, first_us: int) -> None:
        series = self.series.get((operation, model))
        if series is None:
            series = self.series[operation, model] = Series()
        series.outcomes[outcome] = series.outcomes.get(outcome, 0) + 1
        series.prompt += tokens.prompt
        series.completion += tokens.completion
        series.cached += tokens.cached
        series.latency[bisect_left(BUCKETS_US, latency_us)] += 1
        series.first_byte[bisect_left(BUCKETS_US, first_us)] += 1
        series.latency_sum_us += latency_us
        series.first_byte_sum_us += first_us

    def not_admitted(self, operation: str, status: int) -> None:
        self.refused[operation, status] = self.refused.get((operation, status), 0) + 1
