"""Builds the two C programs, and starts, pins, weighs and ends processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

NATIVE = Path(__file__).parent / "native"
LOAD_CORE, GATEWAY_CORE = "0", "1"


def build(folder: Path) -> None:
    """Compile `upstream` and `load` into `folder`. Raises CalledProcessError."""
    for name in ("upstream", "load"):
        source = NATIVE / f"{name}.c"
        subprocess.run(
            ["cc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", folder / name, source], check=True
        )


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], *, core: str, log: Path, environ: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """A process pinned to a core, ended with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", core, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Until `url` answers 200. Raises RuntimeError with the log's end when it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(url, timeout=2),
        ):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not come up:\n{log.read_text(errors='replace')[-2000:]}")


def load(folder: Path, port: int, connections: int, seconds: float, model: str, key: str, mode: str) -> dict[str, Any]:
    """One window of load from its own core; what `load` printed."""
    arguments = [str(port), str(connections), str(seconds), model, key, mode]
    made = subprocess.run(
        ["taskset", "-c", LOAD_CORE, folder / "load", *arguments], check=True, capture_output=True, timeout=180
    )
    return json.loads(made.stdout)


def cpu_us(pid: int) -> float:
    """CPU time of a process and all its threads so far, in microseconds."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1000


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextlib.contextmanager
def folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="indigo-bench-") as made:
        yield Path(made)
