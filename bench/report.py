"""The figures as a table for the terminal, as `docs/benchmarks.md` and as a picture."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import Figures, median

DOCS = Path(__file__).parent.parent / "docs"
COLUMNS = (
    "CPU µs a request",
    "CPU µs a chunk",
    "p50 µs, 1 connection",
    "p50 µs, 8",
    "p99 µs, 8",
    "first chunk p50 µs",
    "chunk lag p99 µs",
    "open streams",
    "MiB for them",
)


@dataclass(frozen=True, slots=True)
class Run:
    figures: dict[str, Figures]
    rounds: int
    seconds: float
    stored: int
    """Rows in Indigo's database at the end."""
    build: str


def rows(run: Run) -> list[tuple[str, list[str]]]:
    made: list[tuple[str, list[str]]] = []
    for name, figures in run.figures.items():
        cells = [_spread(figures.request_cpu), _spread(figures.chunk_cpu)]
        cells += [_whole(median(values)) for values in (
            figures.one_p50, figures.eight_p50, figures.eight_p99, figures.first_p50, figures.lag_p99
        )]  # fmt: skip
        cells += [f"{figures.open_streams:,}" if figures.open_streams else "–"]
        cells += [f"{figures.open_mib:.0f}" if figures.open_mib else "–"]
        made.append((name, cells))
    return made


def _whole(value: float) -> str:
    return "–" if value != value else f"{value:,.0f}"


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{median(values):,.1f} ({min(values):,.1f}–{max(values):,.1f})"


def verdicts(run: Run) -> list[str]:
    """Each goal, what was measured, and whether it was met."""
    ours, limit, nothing = run.figures["indigo"], run.figures["nginx"], run.figures["direct"]
    peer = run.figures.get("litellm")
    request, chunk = median(ours.request_cpu), median(ours.chunk_cpu)
    made = [
        _verdict("CPU of a request, µs", request, 35),
        _verdict("CPU of a streamed chunk, µs", chunk, 20),
        _verdict("Request against nginx, times", request / median(limit.request_cpu), 2.3),
        _verdict("Added p50 at 8 connections, ms", (median(ours.eight_p50) - median(nothing.eight_p50)) / 1000, 0.15),
        _verdict("Added p99 at 8 connections, ms", (median(ours.eight_p99) - median(nothing.eight_p99)) / 1000, 1.0),
    ]
    if ours.open_streams:
        made.append(_verdict(f"Memory of {ours.open_streams:,} open streams, MiB", ours.open_mib, 250))
    if peer is not None and peer.request_cpu:
        times = median(peer.request_cpu) / request
        made.append(f"LiteLLM takes {times:,.0f} times our CPU for a request; the goal is 150: {_met(times >= 150)}.")
    complete = run.stored == ours.requests
    made.append(
        f"Usage rows stored: {run.stored:,} for {ours.requests:,} requests answered"
        + (": each exactly once." if complete else "; the difference is what was still running when a window closed.")
    )
    return made


def _verdict(what: str, value: float, goal: float) -> str:
    return f"{what}: {value:,.2f}, the goal is at most {goal:g}: {_met(value <= goal)}."


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{model}, kernel {platform.release()}"


def python_build() -> str:
    """Which interpreter: builds with profile-guided optimisation, such as Debian's, take a third less CPU."""
    return f"Python {platform.python_version()} ({platform.python_compiler()})"


def show(run: Run) -> None:
    console = Console()
    console.width = max(console.width, 150)
    table = Table("", *COLUMNS, title="Medians (lowest–highest window)")
    for name, cells in rows(run):
        table.add_row(name, *cells)
    console.print(table)
    for line in verdicts(run):
        console.print(f"- {line}", markup=False)


def write(run: Run) -> None:
    """`docs/benchmarks.md` and `docs/benchmarks.svg`."""
    header = "| | " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * len(COLUMNS) + "\n"
    body = "".join(f"| {name} | " + " | ".join(cells) + " |\n" for name, cells in rows(run))
    goals = "".join(f"- {line}\n" for line in verdicts(run))
    seconds = f"{run.seconds:g}"
    page = TEXT.format(
        table=header + body, goals=goals, rounds=run.rounds, seconds=seconds, machine=machine(), build=run.build
    )
    (DOCS / "benchmarks.md").write_text(page)
    (DOCS / "benchmarks.svg").write_text(picture(run))


TEXT = """# Benchmarks

Made by `python -m bench --litellm --write`: everything in one run on one machine, the candidates in turn
(A B C, A B C, …), {rounds} rounds of {seconds} s windows, medians, and the lowest and highest window where the
machine's noise matters. The gateway has one core, the load and the made-up model server the other one. A request
is a chat completion of about 1 KB with an answer of about 600 bytes, over 64 kept-alive connections unless it
says otherwise; a stream is 100 chunks, 10 ms apart, 64 at a time. CPU time is the process's own with all its
threads, by the kernel's account (`/proc/PID/task/*/schedstat`): on a shared machine it is the figure to trust.

Indigo has everything on: keys, routing, limits, metering with the rows written to SQLite by the same process, and
metrics. nginx only passes bytes on; it stands for the least that a proxy can cost. LiteLLM runs its proxy with one
key, without a database.

{machine}; {build}.

![CPU time of a request and of a chunk](benchmarks.svg)

{table}
## Against the goals

{goals}
"""


def picture(run: Run) -> str:
    """Bars on a logarithmic scale: CPU µs a request, and a chunk."""
    bars: list[tuple[str, float, str]] = []
    for name, figures in run.figures.items():
        if figures.request_cpu:
            bars.append(
                (f"{name}: a request", median(figures.request_cpu), "#4f46e5" if name == "indigo" else "#94a3b8")
            )
        if figures.chunk_cpu:
            bars.append((f"{name}: a chunk", median(figures.chunk_cpu), "#818cf8" if name == "indigo" else "#cbd5e1"))
    bars.sort(key=lambda bar: bar[0].split(": ")[1] + f"{bar[1]:012.1f}", reverse=True)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {40 + 34 * len(bars)}" '
        'font-family="system-ui, sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="16" y="24" fill="#334155">CPU time in µs, logarithmic; shorter is better</text>',
    ]
    for place, (name, value, colour) in enumerate(bars):
        y = 40 + 34 * place
        width = 420 * _log_share(value, max(bar[1] for bar in bars))
        lines.append(f'<text x="176" y="{y + 18}" text-anchor="end" fill="#0f172a">{escape(name)}</text>')
        lines.append(f'<rect x="188" y="{y + 3}" width="{width:.0f}" height="22" rx="3" fill="{colour}"/>')
        lines.append(f'<text x="{196 + width:.0f}" y="{y + 18}" fill="#334155">{value:,.1f}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _log_share(value: float, most: float) -> float:
    return math.log10(max(value, 1.01)) / math.log10(max(most, 1.1))
