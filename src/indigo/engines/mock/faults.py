"""What can go wrong with an upstream, by name: the model `mock-fault-NAME` does it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from indigo.engines.mock import answers
from indigo.engines.mock.answers import DONE, Ask

JSON = "application/json"
SSE = "text/event-stream"
PAUSE = 0.005
HUGE = 100 * 1024 * 1024


class Exchange(Protocol):
    """One request's answer. `head` without a length means chunked; `chunk` frames, `raw` does not."""

    ask: Ask
    chat: bool

    def head(
        self, status: int, kind: str, length: int | None = None, extra: tuple[tuple[str, str], ...] = ()
    ) -> None: ...
    def chunk(self, data: bytes) -> None: ...
    def raw(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def close(self) -> None: ...
    def reset(self) -> None: ...


Fault = Callable[[Exchange], Coroutine[Any, Any, None]]


def _events(exchange: Exchange, usage: bool = True) -> list[bytes]:
    return answers.events(exchange.ask, answers.words(exchange.ask, 6), usage, exchange.chat)


def _body(exchange: Exchange) -> bytes:
    return answers.whole(exchange.ask, answers.words(exchange.ask, 6), True, exchange.chat)


def _whole(exchange: Exchange, body: bytes, *, status: int = 200, kind: str = JSON, **extra: str) -> None:
    headers = tuple((name.replace("_", "-"), value) for name, value in extra.items())
    exchange.head(status, kind, len(body), headers)
    exchange.raw(body)


def _status(status: int, message: str, **extra: str) -> Fault:
    async def fault(exchange: Exchange) -> None:
        _whole(exchange, answers.error(status, message), status=status, **extra)

    return fault


def _streamed(change: Callable[[list[bytes]], list[bytes]], kind: str = SSE, usage: bool = True) -> Fault:
    """A stream whose pieces `change` has changed; for a request that is not streamed, the plain answer."""

    async def fault(exchange: Exchange) -> None:
        if not exchange.ask.stream:
            return _whole(exchange, _body(exchange))
        exchange.head(200, kind)
        for piece in change([*_events(exchange, usage), DONE]):
            exchange.chunk(piece)
            await asyncio.sleep(0)
        return exchange.end()

    return fault


def _broken(end: Callable[[Exchange], None]) -> Fault:
    """Half an answer, then `end`."""

    async def fault(exchange: Exchange) -> None:
        if exchange.ask.stream:
            exchange.head(200, SSE)
            events = _events(exchange)
            for piece in events[: len(events) // 2]:
                exchange.chunk(piece)
        else:
            body = _body(exchange)
            exchange.head(200, JSON, len(body))
            exchange.raw(body[: len(body) // 2])
        await asyncio.sleep(PAUSE)
        end(exchange)

    return fault


def _silent(exchange: Exchange) -> None:
    """Neither another byte nor an end."""


async def _reset(exchange: Exchange) -> None:
    exchange.reset()


async def _no_answer(exchange: Exchange) -> None:
    _silent(exchange)


async def _headers_only(exchange: Exchange) -> None:
    exchange.head(200, SSE if exchange.ask.stream else JSON)


async def _garbage(exchange: Exchange) -> None:
    exchange.raw(b"\x16\x03\x01garbage that is not HTTP\r\n\r\n\x00\xff" * 8)
    exchange.close()


async def _garbage_body(exchange: Exchange) -> None:
    body = b'{"choices": [{"index": 0, "mess\x00\xff'
    _whole(exchange, b"data: " + body + b"\n\n" if exchange.ask.stream else body, kind=_kind(exchange))


async def _html(exchange: Exchange) -> None:
    _whole(exchange, b"<!DOCTYPE html><title>Welcome</title>", kind="text/html; charset=utf-8")


async def _error_200(exchange: Exchange) -> None:
    _whole(exchange, answers.error(500, "The mock failed with a 200."))


async def _empty(exchange: Exchange) -> None:
    _whole(exchange, b"", kind=_kind(exchange))


async def _long_length(exchange: Exchange) -> None:
    body = _plain(exchange)
    exchange.head(200, _kind(exchange), len(body) + 100)
    exchange.raw(body)
    exchange.close()


async def _short_length(exchange: Exchange) -> None:
    body = _plain(exchange)
    exchange.head(200, _kind(exchange), len(body) - 10)
    exchange.raw(body)


async def _gzip(exchange: Exchange) -> None:
    _whole(exchange, gzip.compress(_plain(exchange)), kind=_kind(exchange), Content_Encoding="gzip")


async def _one_byte(exchange: Exchange) -> None:
    exchange.head(200, _kind(exchange))
    for value in _plain(exchange):
        exchange.chunk(bytes([value]))
        await asyncio.sleep(0)
    exchange.end()


async def _slow(exchange: Exchange) -> None:
    exchange.head(200, _kind(exchange))
    for value in _plain(exchange):
        exchange.chunk(bytes([value]))
        await asyncio.sleep(1)
    exchange.end()


async def _huge(exchange: Exchange) -> None:
    exchange.head(200, _kind(exchange))
    exchange.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"' if exchange.ask.stream else b'{"x":"')
    for _ in range(HUGE // 65536):
        exchange.chunk(b"x" * 65536)
        await asyncio.sleep(0)
    exchange.chunk(b'"}}]}\n\n' + DONE if exchange.ask.stream else b'"}')
    exchange.end()


def _split_utf8(pieces: list[bytes]) -> list[bytes]:
    """One event with letters of two to four bytes, a cut inside each."""
    said = answers.event({"choices": [{"index": 0, "delta": {"content": "é€𝄞"}, "finish_reason": None}]})
    cuts = [place for place, value in enumerate(said) if value & 0xC0 == 0x80]
    ends = [*cuts, len(said)]
    return [pieces[0], *(said[a:b] for a, b in zip([0, *cuts], ends, strict=True)), *pieces[1:]]


def _nan(pieces: list[bytes]) -> list[bytes]:
    return [piece.replace(b'"logprobs":null', b'"logprobs":{"content":[{"logprob":NaN}]}') for piece in pieces]


def _plain(exchange: Exchange) -> bytes:
    return b"".join([*_events(exchange), DONE]) if exchange.ask.stream else _body(exchange)


def _kind(exchange: Exchange) -> str:
    return SSE if exchange.ask.stream else JSON


_ERROR_EVENT = b"data: " + answers.error(500, "The mock failed in its stream.") + b"\n\n"

FAULTS: dict[str, Fault] = {
    "400": _status(400, "The mock refused the request."),
    "401": _status(401, "The mock does not know the key sk-secret-of-the-upstream."),
    "403": _status(403, "The mock forbids it."),
    "404": _status(404, "The mock has no such model."),
    "429": _status(429, "The mock is busy.", Retry_After="2"),
    "500": _status(500, "The mock failed."),
    "503": _status(503, "The mock is loading.", Retry_After="1"),
    "redirect": _status(307, "The mock has moved.", Location="http://127.0.0.1:9/v1/chat/completions"),
    "reset": _reset,
    "no-answer": _no_answer,
    "headers-only": _headers_only,
    "garbage": _garbage,
    "garbage-body": _garbage_body,
    "html": _html,
    "error-200": _error_200,
    "empty": _empty,
    "empty-stream": _streamed(lambda pieces: []),
    "half-stream": _broken(lambda exchange: exchange.close()),
    "half-reset": _broken(lambda exchange: exchange.reset()),
    "stall": _broken(_silent),
    "error-first": _streamed(lambda pieces: [_ERROR_EVENT]),
    "error-middle": _streamed(lambda pieces: [*pieces[:3], _ERROR_EVENT]),
    "no-done": _streamed(lambda pieces: pieces[:-1]),
    "after-done": _streamed(lambda pieces: [*pieces, pieces[1]]),
    "usage-twice": _streamed(lambda pieces: [*pieces[:-1], *pieces[-2:]]),
    "no-usage": _streamed(lambda pieces: pieces, usage=False),
    "crlf": _streamed(lambda pieces: [piece.replace(b"\n", b"\r\n") for piece in pieces]),
    "comments": _streamed(lambda pieces: [part for piece in pieces for part in (b": ping\n\n", piece)]),
    "one-byte": _one_byte,
    "split-utf8": _streamed(_split_utf8),
    "invalid-utf8": _streamed(lambda pieces: [piece.replace(b"word", b"w\xff\xfe") for piece in pieces]),
    "nan": _streamed(_nan),
    "wrong-type": _streamed(lambda pieces: pieces, kind="application/octet-stream"),
    "gzip": _gzip,
    "long-length": _long_length,
    "short-length": _short_length,
    "huge-event": _huge,
    "slow": _slow,
}
