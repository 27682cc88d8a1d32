"""Looks at a GGUF file before the engine does: is it one, is it whole, how much memory will it take?

Reads the header only, whatever the size of the file. Format: ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{
        16: (256, 66),
        17: (256, 74),
        18: (256, 98),
        19: (256, 50),
        20: (32, 18),
        21: (256, 110),
        22: (256, 82),
    },
    **{23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18)},
}
"""Numbers in a block and bytes of it, by tensor type. The gguf package has the same table, and half a second
of imports; a test compares the two."""
POOLING_RANK = 4
CACHE_BYTES = 2
"""Bytes of one number in the engine's key-value cache (f16)."""
WORKING_BYTES = 64 * 1024 * 1024
"""What the engine takes besides weights and cache, at least."""

Value = int | float | bool | str | None


class Unusable(Exception):
    """The file cannot be loaded; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """`fields` holds the file's metadata except arrays."""

    fields: dict[str, Value]
    size: int

    @property
    def architecture(self) -> str:
        return str(self.fields.get("general.architecture", ""))

    @property
    def context_length(self) -> int:
        return self._number("context_length")

    @property
    def pooling(self) -> int:
        """0 none, 1 mean, 2 first, 3 last token, 4 rank; other than 0 in embedding and reranking models."""
        return self._number("pooling_type")

    def memory(self, context: int) -> int:
        """Bytes the engine will take for a cache of `context` tokens, roughly."""
        heads = self._number("attention.head_count_kv") or self._number("attention.head_count") or 1
        width = self._number("embedding_length") // max(1, self._number("attention.head_count"))
        both = (self._number("attention.key_length") or width) + (self._number("attention.value_length") or width)
        cache = context * self._number("block_count") * heads * both * CACHE_BYTES
        return self.size + cache + WORKING_BYTES

    def _number(self, key: str) -> int:
        value = self.fields.get(f"{self.architecture}.{key}")
        return int(value) if isinstance(value, (int, float)) else 0


def read(path: Path) -> Header:
    """The header of the file at `path`. Raises Unusable for what is no GGUF file, or not all of one."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start != MAGIC:
                raise Unusable(f"The model file {path} is not a GGUF file{_guess(start)}.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, path).header()
    except FileNotFoundError:
        raise Unusable(f"The model file {path} does not exist.") from None
    except OSError as error:
        raise Unusable(f"The model file {path} cannot be read: {error.strerror}.") from None


def _guess(start: bytes) -> str:
    if not start:
        return ": it is empty"
    if start[:2] == b"PK":
        return ": it looks like a zip archive or PyTorch checkpoint; convert it to GGUF first"
    if start in (b"<!DO", b"<htm", b"vers"):
        return ": it looks like a web page or a Git LFS pointer; download the file itself"
    return ""


class _Reader:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 4
        self._order = "<"

    def header(self) -> Header:
        try:
            return self._header()
        except (struct.error, IndexError, OverflowError):
            raise Unusable(f"The model file {self._path} is truncated: it ends within its header.") from None

    def _header(self) -> Header:
        version = self._number("I")
        if version not in (2, 3):
            raise Unusable(f"The model file {self._path} has GGUF version {version}; 2 and 3 can be read.")
        tensors, count = self._number("Q"), self._number("Q")
        if max(tensors, count) > len(self._data):
            raise Unusable(f"The model file {self._path} is damaged: its header makes no sense.")
        fields: dict[str, Value] = {}
        for _ in range(count):
            key = self._text()
            fields[key] = self._value(self._number("I"))
        end = max((self._tensor_end() for _ in range(tensors)), default=0)
        alignment = fields.get("general.alignment")
        step = alignment if isinstance(alignment, int) and alignment > 0 else 32
        needed = -(-self._at // step) * step + end
        if len(self._data) < needed:
            raise Unusable(
                f"The model file {self._path} is truncated: it has {len(self._data):,} of at least "
                f"{needed:,} bytes. Download it again."
            )
        return Header(fields, len(self._data))

    def _number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self._data, self._at)
        self._at += struct.calcsize("<" + kind)
        return value

    def _text(self) -> str:
        length = self._number("Q")
        start = self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8", "replace")

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._data):
            raise IndexError

    def _value(self, kind: int) -> Value:
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            self._array()
            return None
        if kind not in SCALARS:
            raise Unusable(f"The model file {self._path} is damaged: its header makes no sense.")
        return self._number(SCALARS[kind])

    def _array(self) -> None:
        """Passes over an array: the vocabulary and its merges are most of a header, and not needed."""
        kind, count = self._number("I"), self._number("Q")
        if kind in SCALARS:
            self._skip(count * struct.calcsize(SCALARS[kind]))
        elif kind == STRING and count <= len(self._data):
            unpack, data, at = struct.Struct("<Q").unpack_from, self._data, self._at
            for _ in range(count):
                at += 8 + unpack(data, at)[0]
            self._at = at
            self._skip(0)
        else:
            raise Unusable(f"The model file {self._path} is damaged: its header makes no sense.")

    def _tensor_end(self) -> int:
        """Where the next tensor ends, from the start of the data."""
        self._text()
        elements = 1
        for _ in range(self._number("I")):
            elements *= self._number("Q")
        kind = self._number("I")
        offset = self._number("Q")
        block, size = BLOCKS.get(kind, (1, 0))  # of a newer type only the start is known
        return offset + elements // block * size
