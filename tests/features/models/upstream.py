"""A model endpoint on a real socket: plain asyncio, answers by path, and what it was sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

Answer = tuple[int, bytes]


@dataclass
class Upstream:
    """`answers` by path; any other path is a 404. `raw`, where set, is sent instead, as it is."""

    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    raw: bytes | None = None
    location: str = ""
    hang: bool = False
    port: int = 0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list[tuple[str, dict[str, str]]])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def lists(self, *models: str) -> None:
        data = [{"id": model, "object": "model"} for model in models]
        self.answers["/v1/models"] = (200, json.dumps({"object": "list", "data": data}).encode())

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = head[0].split(" ")[1]
            self.requests.append((path, dict(line.split(": ", 1) for line in head[1:] if line)))
            if self.hang:
                await reader.read()
                return
            status, body = self.answers.get(path, (404, b"{}"))
            location = f"Location: {self.location}\r\n" if self.location else ""
            plain = f"HTTP/1.1 {status} X\r\n{location}Content-Length: {len(body)}\r\n\r\n".encode() + body
            writer.write(plain if self.raw is None else self.raw)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    upstream: Upstream | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unix: Path | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[Upstream]:
    it = upstream or Upstream()
    if unix is not None:
        server = await asyncio.start_unix_server(it.answer, unix)
    else:
        server = await asyncio.start_server(it.answer, host, port, ssl=tls)
        it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        await server.wait_closed()
