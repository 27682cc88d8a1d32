"""What a body must not be, checked beyond being JSON: too deep, numbers too long, a field twice, not UTF-8.

Time is linear, and a large body is checked in slices with the event loop in between: one client's 20 MiB must not
keep the others waiting. Whether it is JSON at all is left to the decoder.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Iterator

import msgspec
from msgspec import Raw

from indigo.kernel.errors import InvalidRequest

MAX_DEPTH = 64
MAX_DIGITS = 512
MAX_FIELDS = 1_000
LARGE = 256 * 1024
SLICE = 512 * 1024
STEPS = 4_096
MAX_STEPS = 1_000_000
"""Brackets and quotes in a large body that has more than a few brackets."""

_FLATTEN = bytes.maketrans(b"[]", b"{}")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_PLAIN = bytes.maketrans(b"[123456789", b"{000000000")
_LONG_NUMBER = b"0" * MAX_DIGITS
_HALF_NUMBER = b"0" * (MAX_DIGITS // 2)
"""At a slice's edge: the other half may be in the next."""
_KEY = re.compile(rb'[\s{,]*("(?:[^"\\]++|\\.)*+")\s*:\s*', re.DOTALL)
_decode_raw = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_name = msgspec.json.Decoder(str).decode


def small(body: bytes) -> None:
    """For bodies up to LARGE. Raises InvalidRequest."""
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(error.start) from None
    plain = body.translate(_PLAIN)
    if plain.count(b"{") > MAX_DEPTH:
        _check_depth(body)
    if _LONG_NUMBER in plain:
        unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
        if any(_LONG_NUMBER in part.translate(_DIGITS) for part in unescaped.split(b'"')[::2]):
            raise _too_long()


def _check_depth(body: bytes) -> None:
    """Removing every innermost pair once a round takes away exactly one level: no recursion."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(unescaped.translate(_FLATTEN, _NOT_BRACKETS).split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        before = len(brackets)
        brackets = brackets.replace(b"{}", b"")
        if len(brackets) == before:
            break
    if brackets:
        raise _too_deep()


async def large(body: bytes) -> None:
    """The same for a body of any size, with the event loop let through often. Raises InvalidRequest."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    openings = quotes = 0
    long_number = False
    for start in range(0, len(body), SLICE):
        part = body[start : start + SLICE]
        try:
            decoder.decode(part, final=start + SLICE >= len(body))
        except UnicodeDecodeError as error:
            raise _not_utf8(start + error.start) from None
        plain = part.translate(_PLAIN)
        openings += plain.count(b"{")
        quotes += part.count(b'"')
        long_number = long_number or _LONG_NUMBER in plain
        long_number = long_number or _HALF_NUMBER in plain[:MAX_DIGITS] or _HALF_NUMBER in plain[-MAX_DIGITS:]
        await asyncio.sleep(0)
    if openings > MAX_DEPTH or long_number or quotes > 4 * MAX_FIELDS:
        if quotes + 2 * openings > MAX_STEPS:
            raise InvalidRequest(f"The body has more than {MAX_STEPS} quotes and brackets.", code="too_complex")
        await _walk(body)


async def _walk(body: bytes) -> None:
    """Depth, numbers and fields, from one part outside strings to the next."""
    depth = fields = 0
    for step, part in enumerate(outside_strings(body)):
        if step % STEPS == 0:
            await asyncio.sleep(0)
        for start in range(0, len(part), SLICE):
            if start:
                await asyncio.sleep(0)
            piece = part[start : start + SLICE + MAX_DIGITS]
            if len(piece) >= MAX_DIGITS and _LONG_NUMBER in piece.translate(_DIGITS):
                raise _too_long()
            for bracket in piece[:SLICE].translate(_FLATTEN, _NOT_BRACKETS):
                depth += 1 if bracket == 123 else -1
                if depth > MAX_DEPTH:
                    raise _too_deep()
        if depth == 1 and part.rstrip().endswith(b","):
            fields += 1
            if fields > MAX_FIELDS:
                raise _too_many()


def outside_strings(body: bytes) -> Iterator[bytes]:
    """The parts of a JSON text outside its strings; an empty one now and then, for each quote within a string."""
    start = 0
    while (quote := body.find(b'"', start)) >= 0:
        yield body[start:quote]
        inside = quote + 1
        while True:
            end = body.find(b'"', inside)
            if end < 0:
                return  # an unfinished string: the decoder will say so
            text = body[inside:end]
            inside = end + 1
            if (len(text) - len(text.rstrip(b"\\"))) % 2 == 0:
                break
            yield b""
        start = inside
    yield body[start:]


def check_duplicates(body: bytes) -> None:
    """A field twice may be read differently here and at the model. `body` is a JSON object.

    Called where it matters: a field that the gateway acts on may be there twice, or the body is large.

    The decoder keeps the last of two; walking over the keys with its values in hand, the first one stands out.
    """
    try:
        fields = _decode_raw(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if len(fields) > MAX_FIELDS:
        raise _too_many()
    place = 0
    seen: set[str] = set()
    while (found := _KEY.match(body, place)) is not None:
        name = _decode_name(found[1])
        value = bytes(fields[name])
        place = found.end() + len(value)
        if name in seen or body[found.end() : place] != value:
            raise _twice(name)
        seen.add(name)
    if len(seen) != len(fields) or body[place:].strip() != b"}":
        raise InvalidRequest("The body has a field twice.", code="duplicate_field")


def _twice(name: str) -> InvalidRequest:
    shown = name[:64]
    return InvalidRequest(f"The field {shown!r} appears twice.", code="duplicate_field", param=shown)


def _not_utf8(place: int) -> InvalidRequest:
    return InvalidRequest(f"The body is not UTF-8: byte {place} is wrong.", code="invalid_json")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels, or unbalanced.", code="too_deep")


def _too_many() -> InvalidRequest:
    return InvalidRequest(f"The body has more than {MAX_FIELDS} fields.", code="too_complex")


def _too_long() -> InvalidRequest:
    return InvalidRequest(f"A number has more than {MAX_DIGITS} digits.", code="number_too_long")
