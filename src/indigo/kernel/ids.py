"""Identifiers: prefixed and unguessable for objects, time-ordered for events.

`new_id` gives 22 base-62 characters (131 bits of randomness), `event_id` a UUIDv7 (RFC 9562 §5.7).
"""

from __future__ import annotations

import os
import secrets
import string
import time

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


def base62(number: int, width: int) -> str:
    """`number` in base 62, left-padded with zeros to `width` characters."""
    digits: list[str] = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix: str) -> str:
    """`{prefix}_` and 22 random base-62 characters."""
    return f"{prefix}_{base62(secrets.randbits(131), 22)}"


class EventIds:
    """Mints UUIDv7 strings in increasing order: 48 bits of milliseconds, a 42-bit counter, 32 random bits.

    The counter keeps ids of one process in order within a millisecond; a random start and the process's own
    random tail keep two processes apart (RFC 9562 §6.2, method 1). One id costs under a microsecond.
    """

    __slots__ = ("_counter", "_tail")

    def __init__(self) -> None:
        self._counter = int.from_bytes(os.urandom(5), "big")
        self._tail = os.urandom(4).hex()

    def next(self) -> str:
        self._counter = counter = (self._counter + 1) & 0x3FFFFFFFFFF
        millis = time.time_ns() // 1_000_000
        high = f"{millis:012x}"
        return (
            f"{high[:8]}-{high[8:]}-7{counter >> 30:03x}-{0x8000 | (counter >> 16 & 0x3FFF):04x}"
            f"-{counter & 0xFFFF:04x}{self._tail}"
        )
