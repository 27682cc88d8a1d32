"""A crash-proof journal of bytes: appending is a write to mapped memory, which outlives the process.

Each process owns a folder `<root>/<random>` with a locked file in it and segments. What is appended survives
the death of the process always, the death of the machine once synced (about a second). `append` may be
refused and can set room aside for later; `append_reserved` uses such room and is never refused. Folders whose
process has died are found by `orphans`. What the payloads mean is the caller's matter.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from indigo.backends.queue.segment import START, Segment, framed
from indigo.kernel.errors import Unavailable

log = logging.getLogger("indigo.spool")

SEGMENT_BYTES = 4 * 1024 * 1024
LARGEST = 64 * 1024
"""Bytes of one record, frame included. What is left of a segment when a record does not fit is never more."""


class Spool:
    """This process's folder. Not for threads, save `sync`."""

    def __init__(self, root: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Raises Unavailable when the disk has no room for a first segment."""
        self._root = root
        self._max_bytes = max_bytes
        self._segment_bytes = max(segment_bytes, 4 * LARGEST)
        self._number = 0
        self._synced = 0
        self._room = 0
        self._refusing = False
        self._reserved = 0
        self._late: deque[bytes] = deque()
        self._spares: deque[Segment] = deque()
        self.segments: deque[Segment] = deque()
        """Oldest first; the last one is being written."""
        try:
            self.folder, self._lock = _claim(root)
            self._add_spare()
        except OSError as error:
            raise _full() from error
        self._next_segment()

    @property
    def bytes_used(self) -> int:
        """On disk, the unwritten part of the segments included."""
        return (len(self.segments) + len(self._spares)) * self._segment_bytes

    def has_room(self) -> bool:
        """Whether another segment could be made within the bound, or one is held ready."""
        return bool(self._spares) or self.bytes_used + self._segment_bytes <= self._max_bytes

    @property
    def current(self) -> Segment:
        return self.segments[-1]

    @property
    def drained(self) -> bool:
        """Whether readers are through with everything."""
        return not self._late and all(segment.done >= segment.end for segment in self.segments)

    def append(self, payload: bytes, reserve: int = 0) -> int:
        """Write a record, and set aside room for a later one of up to `reserve` bytes. Returns its segment.

        Raises Unavailable when there is no room, on disk or within the spool's limit.
        """
        size = framed(len(payload))
        later = framed(reserve) if reserve else 0
        if size > LARGEST or later > LARGEST:
            raise Unavailable("The request is too large for the usage journal.", code="usage_journal_full")
        if self._room < self._reserved + size + later:
            try:
                while self._room < self._reserved + size + later:
                    self._add_spare()
            except OSError as error:
                if not self._refusing:
                    log.error("the usage journal cannot grow, requests are refused: %s", error)
                self._refusing = True
                raise _full() from error
        self._write(payload, size)
        self._reserved += later
        return self.segments[-1].number

    def append_reserved(self, payload: bytes, reserved: int) -> None:
        """Write a record into room set aside by `append`. Never refused: what is larger than its room and
        finds none waits in memory for some.
        """
        self._reserved -= framed(reserved)
        size = framed(len(payload))
        if size > LARGEST or self._room < self._reserved + size:
            self._late.append(payload)
            return
        self._write(payload, size)

    def append_spare(self, payload: bytes) -> bool:
        """Write a record if that takes nobody's room; returns whether it was written."""
        size = framed(len(payload))
        if size > LARGEST or self._room < self._reserved + size:
            return False
        self._write(payload, size)
        return True

    def release(self, before: int) -> None:
        """Delete the segments numbered below `before` that readers are through with, oldest first."""
        while len(self.segments) > 1:
            oldest = self.segments[0]
            if oldest.number >= before or oldest.done < oldest.end:
                break
            self.segments.popleft().delete()

    def write_late(self) -> None:
        """Write what had to wait in memory, as far as there is room now."""
        while self._late and framed(len(self._late[0])) <= LARGEST:
            if self._room < self._reserved + framed(len(self._late[0])):
                try:
                    self._add_spare()
                except OSError:
                    return
            self._write(payload := self._late.popleft(), framed(len(payload)))

    def sync(self) -> None:
        """Have the operating system write everything to disk. Blocks: for threads; run one at a time, and
        not beside `release`.
        """
        segments = list(self.segments)
        for segment in segments:
            if segment.number >= self._synced:
                segment.sync()
        self._synced = segments[-1].number

    def close(self, *, delete: bool) -> None:
        """Let go of the folder; with `delete` it goes too, since nothing in it is needed. Once is enough."""
        if self._lock < 0:
            return
        for segment in (*self.segments, *self._spares):
            segment.close()
        self.segments.clear()
        self._spares.clear()
        if delete:
            shutil.rmtree(self.folder)
        os.close(self._lock)
        self._lock = -1

    def orphans(self) -> Iterator[Orphan]:
        """The folders of dead processes, each locked for this one until its `close`."""
        for folder in sorted(self._root.iterdir()):
            if folder == self.folder or not (folder / "lock").is_file():
                continue
            lock = _try_lock(folder)
            if lock is not None:
                yield Orphan(folder, lock)

    def _write(self, payload: bytes, size: int) -> None:
        segment = self.segments[-1]
        if segment.end + size > segment.size:
            self._next_segment()
            segment = self.segments[-1]
        segment.append(payload)
        self._room -= size

    def _next_segment(self) -> None:
        """Room counts a spare as its size less the LARGEST that may be lost at the end of the one before."""
        if self.segments:
            self._room -= self.segments[-1].size - self.segments[-1].end - LARGEST
        self.segments.append(self._spares.popleft())

    def _add_spare(self) -> None:
        if self.bytes_used + self._segment_bytes > self._max_bytes:
            raise OSError("the spool's limit is reached")
        path = self.folder / f"{self._number + 1:012d}.seg"
        self._spares.append(Segment.create(path, self._segment_bytes))
        self._number += 1
        self._refusing = False
        self._room += self._segment_bytes - START - LARGEST


class Orphan:
    """The folder of a dead process, to be read and then deleted."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    def records(self) -> Iterator[tuple[bytes, bool, bool]]:
        """(payload, whether it is intact, whether its reader was through with it), in the order written."""
        for path in sorted(self.folder.glob("*.seg")):
            segment = Segment.open(path)
            if segment is None:
                continue
            try:
                for after, payload, intact in segment.records(START):
                    yield payload, intact, after <= segment.done
            finally:
                segment.close()

    def close(self, *, delete: bool) -> None:
        """Let go of it; with `delete` everything in it has been dealt with."""
        if delete:
            shutil.rmtree(self.folder)
        os.close(self._lock)


def _claim(root: Path) -> tuple[Path, int]:
    """A new folder, locked before it can be seen by its final name."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = secrets.token_hex(8)
    hidden = root / f".{name}"
    hidden.mkdir(mode=0o700)
    lock = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    hidden.rename(root / name)
    return root / name, lock


def _try_lock(folder: Path) -> int | None:
    """The lock of a folder that nobody holds and that is still there."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    if not (folder / "lock").exists():
        os.close(lock)
        return None
    return lock


def _full() -> Unavailable:
    return Unavailable(
        "The usage journal cannot be written: the disk, or the journal's limit, is full.",
        code="usage_journal_full",
        retry_after=5,
    )
