"""Drives a request's coroutine without an asyncio task: what it waits for resumes it on the spot.

A task, a future and two trips through the event loop cost as much as everything else the gateway does for a
warm request. The pipeline stays ordinary `async` code; it awaits `Signal`s, and asyncio's own awaitables
through `bridged`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

log = logging.getLogger("indigo.gateway")

T = TypeVar("T")


class Signal(Generic[T]):
    """Something that happens once: with a value, or with an error."""

    __slots__ = ("_error", "_value", "done", "waiter")

    def __init__(self) -> None:
        self.done = False
        self.waiter: Steps | None = None
        self._value: T | None = None
        self._error: BaseException | None = None

    def set(self, value: T) -> None:
        """Resumes who waits, before this returns."""
        self._value = value
        self._happened()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._happened()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def _happened(self) -> None:
        self.done = True
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            waiter.step()

    def __await__(self) -> Generator[Signal[T], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Steps:
    """One coroutine on its way. Has a task's `cancel`, so that uvicorn can end it when its patience ends."""

    __slots__ = ("_cancelled", "_coroutine", "_on_end", "_running", "_waits_for")

    def __init__(self, coroutine: Coroutine[Signal[Any], None, None], on_end: Callable[[Steps], Any]) -> None:
        self._coroutine = coroutine
        self._on_end = on_end
        self._waits_for: Signal[Any] | None = None
        self._running = False
        self._cancelled = False

    def step(self, error: BaseException | None = None) -> None:
        """Run until the next wait, or the end."""
        self._running = True
        try:
            waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._ended()
        except asyncio.CancelledError:
            self._ended()
        except Exception:  # the edge of a task in all but name
            log.exception("a request's last resort failed")
            self._ended()
        else:
            self._running = False
            self._waits_for = waits_for
            waits_for.waiter = self
            if self._cancelled:
                self.end()

    def cancel(self, msg: str | None = None) -> None:
        """As a task's: takes effect in the event loop's next round, so that it may be called in a loop over all."""
        asyncio.get_running_loop().call_soon(self.end)

    def end(self) -> None:
        """Raise CancelledError in the coroutine, before this returns where it waits."""
        if self._waits_for is None or self._running:
            self._cancelled = True  # takes effect at the next wait
            return
        self._cancelled = False
        self._waits_for.waiter = None
        self._waits_for = None
        self.step(asyncio.CancelledError())

    def _ended(self) -> None:
        self._waits_for = None
        self._on_end(self)


async def bridged(awaitable: Awaitable[T], *, unwanted: Callable[[T], None] | None = None) -> T:
    """Wait for something of asyncio's within steps. Cancelled together with them.

    `unwanted` takes a result that came in the instant in which the waiting was cancelled.
    """
    signal: Signal[T] = Signal()
    task = asyncio.ensure_future(awaitable)
    left = False

    def passed_on(ended: asyncio.Future[T]) -> None:
        if ended.cancelled():
            signal.fail(asyncio.CancelledError())
        elif (error := ended.exception()) is not None:
            signal.fail(error)
        elif not left:
            signal.set(ended.result())
        elif unwanted is not None:
            unwanted(ended.result())

    task.add_done_callback(passed_on)
    try:
        return await signal
    finally:
        left = True
        if not task.done():
            task.cancel()
