"""One timer for everything that may take too long: a sweep a few times a second costs less than a timer each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

PERIOD_SECONDS = 0.25


class Sweepable(Protocol):
    def sweep(self, now: float) -> bool:
        """End what has passed its deadline; `now` is the event loop's time. True: forget me."""
        ...


class Sweeper:
    def __init__(self) -> None:
        self._items: set[Sweepable] = set()
        self._pools: list[Sweepable] = []
        self._also: list[Callable[[float], None]] = []
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(PERIOD_SECONDS, self._tick)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    @property
    def size(self) -> int:
        """How many things are watched that come and go."""
        return len(self._items)

    def add(self, item: Sweepable) -> None:
        self._items.add(item)

    def discard(self, item: Sweepable) -> None:
        self._items.discard(item)

    def watch_pool(self, pool: Sweepable) -> None:
        self._pools.append(pool)

    def forget_pool(self, pool: Sweepable) -> None:
        if pool in self._pools:
            self._pools.remove(pool)

    def also(self, call: Callable[[float], None]) -> None:
        """Have `call` called at every sweep."""
        self._also.append(call)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(PERIOD_SECONDS, self._tick)
        now = loop.time()
        for item in list(self._items):
            if item.sweep(now):
                self._items.discard(item)
        for pool in self._pools:
            pool.sweep(now)
        for call in self._also:
            call(now)
