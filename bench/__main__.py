"""`python -m bench`: see `--help`."""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from bench import candidates, measure, programs, report

ROOT = Path(__file__).parent.parent


def main() -> None:
    options = arguments()
    with programs.folder() as folder:
        programs.build(folder)
        stored = 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(candidates.upstreams(folder))
            ours = stack.enter_context(candidates.indigo(folder, options.python))
            measured = [candidates.direct(), stack.enter_context(candidates.nginx(folder)), ours]
            if options.litellm:
                measured.append(stack.enter_context(candidates.litellm(folder, ROOT / ".venv-litellm", options.python)))
            figures = measure.interleaved(folder, measured, rounds=options.rounds, seconds=options.seconds)
            time.sleep(3)  # the last usage is on its way into the database
            stored = rows_stored(folder / "data" / "indigo.db")
            for candidate in measured[1:]:
                if options.streams and candidate.name != "litellm":
                    measure.open_streams(folder, candidate, options.streams, figures[candidate.name])
        run = report.Run(figures, options.rounds, options.seconds, stored, build_of(options.python))
    report.show(run)
    if options.write:
        report.write(run)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Indigo beside nginx and LiteLLM, in one run.")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs Indigo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each window")
    parser.add_argument("--streams", type=int, default=10_000, help="open at once; 0 leaves that out")
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM too; installs it in .venv-litellm")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its picture")
    return parser.parse_args()


def rows_stored(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM usage_events WHERE outcome = 'completed'").fetchone()[0])


def build_of(python: str) -> str:
    code = "from bench.report import python_build; print(python_build())"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


if __name__ == "__main__":
    main()
