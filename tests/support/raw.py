"""A client of raw bytes: what it sends is what was written, and it knows whether an answer was whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from tests.support.ports import KEY

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]

    @property
    def events(self) -> list[Any]:
        """The data of its server-sent events; `[DONE]` as it is."""
        datas = [one.removeprefix("data: ") for one in self.body.decode().split("\n\n") if one]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]

    @property
    def text(self) -> str:
        """The content of a stream."""
        pieces = [
            one["choices"][0]["delta"].get("content") for one in self.events if one != "[DONE]" and one.get("choices")
        ]
        return "".join(piece for piece in pieces if piece)


def request(
    body: Any = None, *, path: str = CHAT, method: str = "POST", key: str | None = KEY, headers: str = "",
    framing: str | None = None,
) -> bytes:  # fmt: skip
    """One request. `body` is JSON, or bytes as they are; `headers` are lines that end in CRLF."""
    data = body if isinstance(body, bytes) else json.dumps(chat() if body is None else body).encode()
    lines = f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}"
    if key is not None:
        lines += f"authorization: Bearer {key}\r\n"
    return (lines + (f"content-length: {len(data)}\r\n" if framing is None else framing) + "\r\n").encode(
        "latin-1"
    ) + data


def chat(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


class Socket:
    """A connection to the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, bare: bool = False, seconds: float = 15.0) -> Answer:
        """The next answer. EOFError where the server closed instead."""
        async with asyncio.timeout(seconds):
            return await self._answer(bare)

    async def _answer(self, bare: bool) -> Answer:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError from error
        line, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
        status = int(line.split(" ")[1])
        if status == 100 or bare:
            return Answer(status, headers, b"", True)
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, *await self._chunks())
        if "content-length" not in headers:
            return Answer(status, headers, await self.reader.read(), True)
        try:
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])), True)
        except asyncio.IncompleteReadError as error:
            return Answer(status, headers, error.partial, False)

    async def _chunks(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        try:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                parts.append((await self.reader.readexactly(size + 2))[:-2])
            await self.reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b"".join(parts), False
        return b"".join(parts), True

    async def closed(self, seconds: float = 5.0) -> bool:
        """Whether the server closes now, without another byte."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


@contextlib.asynccontextmanager
async def connected(port: int, *, limit: int = 2**26) -> AsyncGenerator[Socket]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    try:
        yield Socket(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2):
                await writer.wait_closed()


async def ask(port: int, body: Any = None, **how: Any) -> Answer:
    """One request on a connection of its own."""
    async with connected(port) as socket:
        socket.send(request(body, **how))
        return await socket.answer()
