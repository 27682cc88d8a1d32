"""An upstream of raw bytes: every request is answered by the next script, byte for byte as it stands there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Literal

Step = bytes | float | Literal["close", "reset", "hang"]
Script = Sequence[Step]

SSE = "text/event-stream"


@dataclass(frozen=True)
class Received:
    line: str
    headers: dict[str, str]
    body: bytes


def whole(body: Any, status: int = 200, **headers: str) -> bytes:
    """A complete answer; `body` is JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"content-type": "application/json", "content-length": str(len(data))}
    head.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + data


def head(kind: str = SSE) -> bytes:
    """The beginning of a chunked answer."""
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(content: str | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return (
        b"data: "
        + json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [choice], **more}).encode()
        + b"\n\n"
    )


def usage(prompt: Any = 7, completion: Any = 3, **more: Any) -> bytes:
    said = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
    return b"data: " + json.dumps({"id": "x", "choices": [], "usage": said}).encode() + b"\n\n"


WORDS = ("Hello", " wide", " world")
EVENTS = (*(event(word) for word in WORDS), event(finish="stop"), usage(), DONE)


def stream(*events: bytes) -> bytes:
    """A whole stream as one piece."""
    return head() + b"".join(chunk(one) for one in (events or EVENTS)) + END


def answer(text: str = "Hello wide world") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "choices": [choice],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}  # fmt: skip


class Wall:
    """`scripts` are used up in order; when none is left, `always` is."""

    def __init__(self, *always: Step) -> None:
        self.always: Script = always or (whole(answer()),)
        self.scripts: list[Script] = []
        self.received: list[Received] = []
        self.connections = 0
        self.open = 0
        self.url = ""
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[Wall]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**26)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = text.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received.append(Received(line, headers, body))
        for step in self.scripts.pop(0) if self.scripts else self.always:
            if step == "close":
                return False
            if step == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            if step == "hang":
                await reader.read()
                return False
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
        return True
