"""The windows: what is loaded how, for how long, in which order, and the medians of it."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import programs
from bench.candidates import Candidate


@dataclass(slots=True)
class Figures:
    """One candidate's windows, a value each; microseconds, or MiB."""

    request_cpu: list[float] = field(default_factory=list[float])
    chunk_cpu: list[float] = field(default_factory=list[float])
    one_p50: list[float] = field(default_factory=list[float])
    eight_p50: list[float] = field(default_factory=list[float])
    eight_p99: list[float] = field(default_factory=list[float])
    first_p50: list[float] = field(default_factory=list[float])
    lag_p99: list[float] = field(default_factory=list[float])
    open_streams: int = 0
    open_mib: float = 0.0
    requests: int = 0
    errors: int = 0


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def interleaved(folder: Path, candidates: Sequence[Candidate], *, rounds: int, seconds: float) -> dict[str, Figures]:
    """A B C, A B C, …: so that what disturbs the machine disturbs all of them alike."""
    figures = {candidate.name: Figures() for candidate in candidates}
    for candidate in candidates:
        _window(folder, candidate, 64, 1.0, "json", figures[candidate.name])  # warm up: connections, caches
    for _ in range(rounds):
        for candidate in candidates:
            _round(folder, candidate, seconds, figures[candidate.name])
    return figures


def _round(folder: Path, candidate: Candidate, seconds: float, into: Figures) -> None:
    busy, cpu = _window(folder, candidate, 64, seconds, "json", into)
    if busy["requests"] and candidate.pid:
        into.request_cpu.append(cpu / float(busy["requests"]))
    eight, _ = _window(folder, candidate, 8, seconds, "json", into)
    into.eight_p50.append(float(eight["p50_us"]))
    into.eight_p99.append(float(eight["p99_us"]))
    one, _ = _window(folder, candidate, 1, seconds / 2, "json", into)
    into.one_p50.append(float(one["p50_us"]))
    streams, cpu = _window(folder, candidate, 64, seconds, "stream", into)
    if streams["chunks"] and candidate.pid:
        into.chunk_cpu.append(cpu / float(streams["chunks"]))
    into.first_p50.append(float(streams["first_p50_us"]))
    into.lag_p99.append(float(streams["lag_p99_us"]))


def _window(
    folder: Path, candidate: Candidate, connections: int, seconds: float, mode: str, into: Figures
) -> tuple[dict[str, float], float]:
    before = programs.cpu_us(candidate.pid) if candidate.pid else 0.0
    made = programs.load(
        folder, candidate.ports[mode], connections, seconds, candidate.models[mode], candidate.key, mode
    )
    after = programs.cpu_us(candidate.pid) if candidate.pid else 0.0
    into.requests += int(made["requests"])
    into.errors += int(made["errors"])
    return made, after - before


def open_streams(folder: Path, candidate: Candidate, count: int, into: Figures) -> None:
    """Memory with `count` streams open at once, each with a chunk a second."""
    arguments = [str(candidate.ports["hold"]), str(count), "12", candidate.models["hold"], candidate.key, "hold"]
    with subprocess.Popen(
        ["taskset", "-c", programs.LOAD_CORE, folder / "load", *arguments], stdout=subprocess.PIPE
    ) as process:
        most = 0.0
        while process.poll() is None:
            most = max(most, programs.rss_mib(candidate.pid))
            time.sleep(0.2)
        assert process.stdout is not None
        made = json.loads(process.stdout.read())
    into.open_streams, into.open_mib = int(made["streaming"]), most
