"""One file of the spool: allocated whole, mapped into memory, written from front to back.

Layout: 16 bytes of header (magic, then how far readers are done, as u64), then records of u32 length, u32
CRC-32 and payload, little-endian, padded to 4 bytes. The length is written last and zero ends the file, so a
record is there whole or not at all when its writer is killed. Disk space is taken when the file is made:
writing to the map can then neither fail nor raise SIGBUS for lack of it.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"INDIGOS1"
START = 16
HEADER = struct.Struct("<II")
LENGTH = struct.Struct("<I")
DONE = struct.Struct("<Q")


def framed(size: int) -> int:
    """Bytes that a payload of `size` takes."""
    return (HEADER.size + size + 3) & ~3


class Segment:
    """See the module. `end` is where the next record goes, `done` how far readers are through with it."""

    __slots__ = ("_file", "_map", "done", "end", "number", "path", "size")

    def __init__(self, path: Path, file: int, size: int) -> None:
        self.path = path
        self.number = int(path.stem)
        self.size = size
        self._file = file
        self._map = mmap.mmap(file, size, mmap.MAP_SHARED)
        self.end = START
        self.done = START

    @classmethod
    def create(cls, path: Path, size: int) -> Segment:
        """A new one; raises OSError, leaving nothing behind, when the disk has no room for it."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(file, size)
            segment = cls(path, file, size)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        segment._map[: len(MAGIC)] = MAGIC
        DONE.pack_into(segment._map, len(MAGIC), START)
        return segment

    @classmethod
    def open(cls, path: Path) -> Segment | None:
        """One that a dead process left; None for what is no segment (killed before it was allocated)."""
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(file).st_size
        if size < START or os.pread(file, len(MAGIC), 0) != MAGIC:
            os.close(file)
            return None
        segment = cls(path, file, size)
        segment.end = size
        segment.done = max(START, min(DONE.unpack_from(segment._map, len(MAGIC))[0], size))
        return segment

    def append(self, payload: bytes) -> None:
        """Write one record; the caller has seen to it that there is room."""
        at = self.end
        body = at + 8
        after = body + len(payload)
        self._map[body:after] = payload
        HEADER.pack_into(self._map, at, 0, zlib.crc32(payload))
        self.end = (after + 3) & ~3
        LENGTH.pack_into(self._map, at, len(payload))

    def records(self, start: int) -> Iterator[tuple[int, bytes, bool]]:
        """(where the next one starts, payload, whether it is intact) from `start` on.

        A length that leads out of the file ends the walk: the rest is given as one record that is not intact.
        """
        at = start
        while at + HEADER.size <= self.end:
            length, checksum = HEADER.unpack_from(self._map, at)
            if length == 0:
                return
            after = at + framed(length)
            if after > self.size:
                yield self.size, bytes(self._map[at:]).rstrip(b"\0"), False
                return
            payload = bytes(self._map[at + HEADER.size : at + HEADER.size + length])
            yield after, payload, zlib.crc32(payload) == checksum
            at = after

    def finish(self, offset: int) -> None:
        """Note that readers need nothing before `offset` again."""
        self.done = offset
        DONE.pack_into(self._map, len(MAGIC), offset)

    def sync(self) -> None:
        """Have the operating system write it to disk. Blocks: for threads."""
        os.fdatasync(self._file)

    def close(self) -> None:
        self._map.close()
        os.close(self._file)

    def delete(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(1 << 20)
    for at in range(0, size, len(zeros)):
        os.pwrite(file, zeros[: size - at], at)
