"""The supervisor's judgement, on children that misbehave in ways a real engine does only rarely."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from indigo.engines.supervisor import Child, Failure
from tests.engines.llama_client import QUICK, exchange, supervised, until

SCRIPT = """
import http.server, os, signal, socketserver, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self): return "unix"
    def do_GET(self):
        if self.path == "/busy":
            end = time.monotonic() + 0.8
            while time.monotonic() < end: pass
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
print("\\n".join(f"line {n}" for n in range(200)), flush=True)
if "stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
"""


def explain(status: int, lines: Sequence[str]) -> Failure:
    return Failure(f"status {status}: {lines[-1] if lines else ''}")


def child(folder: Path, *arguments: str, script: str = SCRIPT) -> Child:
    path = str(folder / "child.sock")
    return Child("child", (sys.executable, "-c", script, path, *arguments), f"unix:{path}", explain)


@pytest.mark.threat("F23")
async def test_a_child_too_busy_to_answer_is_left_in_peace(tmp_path: Path) -> None:
    made = child(tmp_path)
    async with supervised(made, replace(QUICK, answer=0.1, failures=2)) as supervisor:
        before = await until(supervisor, lambda state: state.state == "ready")
        status, _ = await asyncio.to_thread(exchange, made.base_url, "/busy")
        assert status == 200
        assert supervisor.state == before


async def test_a_child_busy_for_too_long_is_killed(tmp_path: Path) -> None:
    made = child(tmp_path, script=SCRIPT.replace("0.8", "60"))
    async with supervised(made, replace(QUICK, answer=0.1, busy=0.3)) as supervisor:
        await until(supervisor, lambda state: state.state == "ready")
        asking = asyncio.get_running_loop().run_in_executor(None, exchange, made.base_url, "/busy")
        await until(supervisor, lambda state: state.restarts == 1)
        with pytest.raises(OSError):
            await asking


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with supervised(child(tmp_path, "stubborn"), replace(QUICK, stop=0.2)) as supervisor:
        await until(supervisor, lambda state: state.state == "ready")
    assert supervisor.state.pid is None


async def test_only_the_last_lines_are_kept(tmp_path: Path) -> None:
    async with supervised(child(tmp_path)) as supervisor:
        await until(supervisor, lambda state: state.state == "ready")
        assert supervisor.lines[-1] == "line 199"
        assert len(supervisor.lines) == 50


async def test_the_last_line_and_the_status_explain_an_end(tmp_path: Path) -> None:
    script = "import sys; print('x' * 200_000); sys.exit('out of luck')"
    async with supervised(child(tmp_path, script=script)) as supervisor:
        state = await until(supervisor, lambda state: state.restarts >= 2)
        assert state.reason == "status 1: out of luck"
