"""Keeps one child process running: starts it, waits until it answers, restarts it after a crash or hang.

Knows nothing of models: what to run, where it answers and what its end means are arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from indigo.engines import health
from indigo.kernel.clock import Clock
from indigo.kernel.tasks import Tasks

log = logging.getLogger("indigo.engines")

State = Literal["starting", "loading", "ready", "restarting", "failed", "stopped"]
LINES_KEPT = 50
LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a child ended, in one sentence, and whether to leave it at that."""

    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """What to run. `explain` gets the exit status and the last lines it wrote."""

    name: str
    command: Sequence[str]
    base_url: str
    explain: Callable[[int, Sequence[str]], Failure]
    stdin: bytes = b""
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, except `failures`: health checks in a row that an idle child may miss before it is killed.

    `busy` is how long a child that uses the processor may leave them unanswered.
    """

    poll: float = 0.05
    check: float = 2.0
    answer: float = 2.0
    failures: int = 3
    busy: float = 300.0
    back_off: float = 0.2
    back_off_most: float = 30.0
    ran_well: float = 60.0
    stop: float = 5.0


@dataclass(frozen=True, slots=True)
class EngineState:
    name: str
    state: State
    reason: str = ""
    restarts: int = 0
    pid: int | None = None


class Supervisor:
    """See the module. `start` once, then `stop` once."""

    def __init__(self, child: Child, tasks: Tasks, clock: Clock, timing: Timing | None = None) -> None:
        self._child = child
        self._tasks = tasks
        self._clock = clock
        self._timing = timing or Timing()
        self._state: State = "starting"
        self._reason = ""
        self._restarts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.on_ready: Callable[[], None] = lambda: None
        """Called whenever the child has become ready."""

    @property
    def state(self) -> EngineState:
        process = self._process
        pid = process.pid if process is not None and process.returncode is None else None
        return EngineState(self._child.name, self._state, self._reason, self._restarts, pid)

    @property
    def lines(self) -> list[str]:
        """The last lines the child wrote."""
        return list(self._lines)

    def start(self) -> None:
        self._task = self._tasks.start(self._run(), f"engine {self._child.name}")

    async def settled(self) -> EngineState:
        """Waits until the child is ready or has failed for good."""
        while self._state not in ("ready", "failed", "stopped"):
            self._changed.clear()
            await self._changed.wait()
        return self.state

    async def stop(self) -> None:
        """Ends the child: politely, then not."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._enter("stopped")

    async def _run(self) -> None:
        pause = self._timing.back_off
        while True:
            started = self._clock.monotonic()
            failure = await self._life()
            if failure.final:
                log.error("%s failed: %s", self._child.name, failure.reason)
                self._enter("failed", failure.reason)
                return
            if self._clock.monotonic() - started >= self._timing.ran_well:
                pause = self._timing.back_off
            log.warning("%s: %s Starting it again in %.1f s.", self._child.name, failure.reason, pause)
            self._restarts += 1
            self._enter("restarting", failure.reason)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._timing.back_off_most)

    async def _life(self) -> Failure:
        """One child from its start to its end."""
        self._lines.clear()
        if self._child.base_url.startswith("unix:"):
            # A killed child leaves its socket behind, and the next one could not bind.
            Path(self._child.base_url[5:]).unlink(missing_ok=True)
        try:
            process = self._process = await self._spawn()
        except OSError as error:
            return Failure(f"{self._child.command[0]} cannot be started: {error.strerror}.", final=True)
        self._enter("loading" if self._state == "starting" else self._state, self._reason)
        try:
            hung = await self._watch(process)
        finally:
            await self._end(process)
            _signal(process, signal.SIGKILL)  # what it started and left behind
        return hung or self._child.explain(process.returncode or 0, self._lines)

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._child.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self._child.environ},
            limit=LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for the server, which stops its children last
        )

    async def _watch(self, process: asyncio.subprocess.Process) -> Failure | None:
        """Until the child ends (None), or hangs and has to be ended."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(process))
            checking = group.create_task(self._check(process))
            waiting = group.create_task(process.wait())
            await asyncio.wait((checking, waiting), return_when=asyncio.FIRST_COMPLETED)
            hung = checking.result() if checking.done() else None
            checking.cancel()
            if hung is not None:
                _signal(process, signal.SIGKILL)
            await waiting
            # A grandchild may hold the pipe open; what the child wrote is there by now.
            await asyncio.wait((reading,), timeout=0.5)
            reading.cancel()
        return hung

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self._child.stdin)
        process.stdin.close()
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than LINE_BYTES; the rest follows
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text[:1000])
            log.debug("%s: %s", self._child.name, text)

    async def _check(self, process: asyncio.subprocess.Process) -> Failure:
        """Follows the child's health; returns only when it hangs."""
        timing = self._timing
        missed = 0
        last_answer = self._clock.monotonic()
        used = 0
        while True:
            if await health.healthy(self._child.base_url, timing.answer):
                self._enter("ready")
                missed, last_answer = 0, self._clock.monotonic()
            elif self._state == "ready":
                # One that works but does not answer has all its threads taken: that is load, not a hang.
                now_used = _processor_time(process.pid)
                missed = missed + 1 if now_used == used else 0
                used = now_used
                silent = self._clock.monotonic() - last_answer
                if missed >= timing.failures or silent > timing.busy:
                    return Failure(f"It has not answered for {silent:.0f} s and was killed.")
            await asyncio.sleep(timing.check if self._state == "ready" else timing.poll)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._timing.stop):
                await process.wait()
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()

    def _enter(self, state: State, reason: str = "") -> None:
        became_ready = state == "ready" and state != self._state
        self._state = state
        self._reason = reason
        self._changed.set()
        if became_ready:
            log.info("%s is ready", self._child.name)
            self.on_ready()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the child and all that it started (it leads a process group of its own)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _processor_time(pid: int) -> int:
    """Clock ticks the process has used; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
