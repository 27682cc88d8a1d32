"""The benchmark's programs do what they say. No figure is asserted: that is for a quiet machine and a person."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bench import programs
from bench.measure import Figures
from bench.report import Run, picture, rows, verdicts


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    programs.build(folder)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_whole_answers_and_streams_are_counted_and_timed(built: Path) -> None:
    port = free_port()
    log = built / "log"
    with programs.running([built / "upstream", str(port), "5", "2"], core="0", log=log) as process:
        programs.wait_for(f"http://127.0.0.1:{port}/", process, log)
        whole = programs.load(built, port, 2, 0.3, "m", "k", "json")
        assert whole["requests"] > 10
        assert whole["errors"] == 0
        assert 0 < whole["p50_us"] <= whole["p99_us"]
        streams = programs.load(built, port, 2, 0.3, "m", "k", "stream")
        assert streams["errors"] == 0
        assert streams["requests"] * 5 <= streams["chunks"] <= (streams["requests"] + 2) * 5
        held = programs.load(built, port, 20, 0.3, "m", "k", "hold")
        assert held["streaming"] == 20
        assert programs.cpu_us(process.pid) > 0
        assert programs.rss_mib(process.pid) > 0


def figures(cpu: float) -> Figures:
    return Figures(request_cpu=[cpu], chunk_cpu=[cpu / 2], one_p50=[9], eight_p50=[50], eight_p99=[90], requests=7)


def test_a_missed_goal_is_told_plainly() -> None:
    measured = {"direct": figures(1), "nginx": figures(10), "indigo": figures(36), "litellm": figures(7200)}
    run = Run(measured, rounds=1, seconds=1, stored=7, build="a build")
    said = verdicts(run)
    assert said[0] == "CPU of a request, µs: 36.00, the goal is at most 35: **missed**."
    assert said[1].endswith("met.")
    assert "200 times" in said[-2]
    assert said[-1].endswith("each exactly once.")
    assert len(rows(run)) == 4
    assert "indigo: a request" in picture(run)
