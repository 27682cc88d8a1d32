"""Records every answer that passes between an SDK and the product, and holds it against JSON Schemas.

The schemas in `schemas/` are always applied. Where OpenAI's own description of its API is at hand (a JSON file,
named by INDIGO_OPENAPI_SUBSET or lying beside the repository), every answer must fit that too. Two things are
read into it: a required property that may be null may also be absent, as the model engines leave it out and the
SDKs take it so; and what its text says but its schema does not (base64 embeddings, chunks without an end).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = Path(__file__).with_name("schemas")
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "openai" / "openapi-subset.json"

WHOLE = {
    "/v1/chat/completions": ("chat.completion", "CreateChatCompletionResponse"),
    "/v1/completions": ("text_completion", "CreateCompletionResponse"),
    "/v1/embeddings": ("embeddings", "CreateEmbeddingResponse"),
    "/v1/models": ("model_list", "ListModelsResponse"),
}
EVENTS = {
    "/v1/chat/completions": ("chat.completion.chunk", "CreateChatCompletionStreamResponse"),
    "/v1/completions": ("text_completion.chunk", "CreateCompletionResponse"),
}
ERROR = ("error", "ErrorResponse")
DONE = "[DONE]"
Object = dict[str, Any]


def openai_file() -> Path | None:
    """OpenAI's description, where there is one to be had. One that is named must be there."""
    named = os.environ.get("INDIGO_OPENAPI_SUBSET")
    if named:
        return Path(named)
    return BESIDE if BESIDE.exists() else None


@functools.cache
def _own(name: str) -> Any:
    files = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    make: Any = Registry
    read: Any = Resource
    registry = make().with_resources([(key, read.from_contents(value)) for key, value in files.items()])
    return Draft202012Validator(files[f"{name}.json"], registry=registry)


@functools.cache
def _openai() -> dict[str, Any]:
    path = openai_file()
    if path is None:
        return {}
    components = json.loads(path.read_text())["components"]
    completion = components["schemas"]["CreateCompletionResponse"]["properties"]["choices"]["items"]["properties"]
    completion["finish_reason"]["nullable"] = True
    _modernise(components, components["schemas"])
    return components


@functools.cache
def _openai_validator(component: str) -> Any:
    components = _openai()
    if not components:
        return None
    return Draft202012Validator({"$ref": f"#/components/schemas/{component}", "components": components})


def forget() -> None:
    """Read OpenAI's description anew when it is needed next."""
    _openai.cache_clear()
    _openai_validator.cache_clear()


def _modernise(node: Any, components: Object) -> None:
    """`nullable` of OpenAPI 3.0 as JSON Schema has it; and what may be null need not be there."""
    if isinstance(node, list):
        for item in cast(list[Any], node):
            _modernise(item, components)
    if not isinstance(node, dict):
        return
    schema = cast(Object, node)
    for value in schema.values():
        _modernise(value, components)
    if schema.pop("nullable", False) is True:
        inner = dict(schema)
        schema.clear()
        schema["anyOf"] = [inner, {"type": "null"}]
    if isinstance(schema.get("properties"), dict) and isinstance(schema.get("required"), list):
        properties = cast(Object, schema["properties"])
        names = cast(list[str], schema["required"])
        schema["required"] = [name for name in names if not _nullable(properties.get(name), components)]


def _nullable(node: Any, components: Object) -> bool:
    if not isinstance(node, dict):
        return False
    schema = cast(Object, node)
    if "$ref" in schema:
        return _nullable(components.get(schema["$ref"].rsplit("/", 1)[1]), components)
    if schema.get("nullable") is True or schema.get("type") == "null" or "null" in (schema.get("type") or ""):
        return True
    return any(_nullable(option, components) for option in [*schema.get("anyOf", []), *schema.get("oneOf", [])])


class Recorder:
    """What was seen, and what was wrong with it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.answers = 0
        self.events = 0
        self.streams = 0
        self.complete_streams = 0
        self.at_end = contextlib.ExitStack()
        """Closes the clients that this recorder was given to."""

    def check(self, *, answers: int = 0, events: int = 0) -> None:
        """Nothing was wrong, and at least so much was seen: a recorder that sees nothing proves nothing."""
        assert not self.problems, "\n\n".join(self.problems[:5])
        assert self.answers >= answers, f"the recorder saw {self.answers} answers"
        assert self.events >= events, f"the recorder saw {self.events} events"

    def answer(self, path: str, status: int, body: bytes) -> None:
        """A whole answer."""
        self.answers += 1
        names = ERROR if status >= 400 else _names(WHOLE, path)
        if names is None:
            self.problems.append(f"{path}: there is no schema for it")
            return
        self._hold(names, body.decode(), f"{status} {path}")

    def event(self, path: str, data: str) -> None:
        """The data of one server-sent event, other than the final mark."""
        self.events += 1
        names = ERROR if data.startswith('{"error"') else _names(EVENTS, path)
        if names is None:
            self.problems.append(f"{path}: it should not be a stream")
            return
        self._hold(names, data, f"event of {path}")

    def stream(self, path: str) -> StreamCheck:
        self.streams += 1
        return StreamCheck(self, path)

    def _hold(self, names: tuple[str, str], text: str, what: str) -> None:
        try:
            value = json.loads(text)
        except ValueError as error:
            self.problems.append(f"{what} is not JSON ({error}): {text[:500]}")
            return
        own, component = names
        for whose, validator in (("own", _own(own)), ("OpenAI's", _openai_validator(component))):
            if validator is None:
                continue
            given = _numbers(value) if component == "CreateEmbeddingResponse" else value
            for problem in validator.iter_errors(given if whose == "OpenAI's" else value):
                where = "/".join(str(part) for part in problem.absolute_path)
                self.problems.append(
                    f"{what} breaks {whose} schema at {where!r}: {problem.message[:300]}\n{text[:500]}"
                )


def _names(table: dict[str, tuple[str, str]], path: str) -> tuple[str, str] | None:
    if path.startswith("/v1/models/"):
        return ("model", "Model")
    return table.get(path)


def _numbers(answer: Any) -> Any:
    """Embeddings in base64 as the numbers they are: little-endian, four bytes each."""
    items: list[Any] = []
    for item in answer.get("data", []):
        packed = item.get("embedding")
        if isinstance(packed, str):
            raw = base64.b64decode(packed, validate=True)
            item = {**item, "embedding": list(struct.unpack(f"<{len(raw) // 4}f", raw))}
        items.append(item)
    return {**answer, "data": items}


class StreamCheck:
    """Takes a stream apart as it passes."""

    def __init__(self, recorder: Recorder, path: str) -> None:
        self._recorder = recorder
        self._path = path
        self._rest = b""
        self._done = False

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for block in whole:
            self._block(block.decode())

    def end(self) -> None:
        """At the stream's own end; not when the client has left."""
        if self._rest:
            self._recorder.problems.append(f"a stream of {self._path} ends within an event: {self._rest[:200]!r}")

    def _block(self, block: str) -> None:
        for line in block.split("\n"):
            if line.startswith(":"):
                continue
            if not line.startswith("data: "):
                self._recorder.problems.append(f"a line of {self._path} is not 'data: …': {line[:200]!r}")
            elif self._done:
                self._recorder.problems.append(f"{self._path} goes on after {DONE}: {line[:200]!r}")
            elif line[6:] == DONE:
                self._done = True
                self._recorder.complete_streams += 1
            else:
                self._recorder.event(self._path, line[6:])


class _Tee:
    """One answer on its way: fed with its bytes, told its end."""

    def __init__(self, recorder: Recorder, path: str, response: httpx2.Response) -> None:
        self._recorder = recorder
        self._path = path
        self._status = response.status_code
        self._body = bytearray()
        kind = response.headers.get("content-type", "")
        self._check = recorder.stream(path) if kind.startswith("text/event-stream") else None
        if "content-encoding" in response.headers:
            recorder.problems.append(f"{path} came with a content encoding nobody asked for")

    def feed(self, data: bytes) -> None:
        if self._check is not None:
            self._check.feed(data)
        else:
            self._body += data

    def end(self) -> None:
        if self._check is not None:
            self._check.end()
        else:
            self._recorder.answer(self._path, self._status, bytes(self._body))


class _Stream(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, tee: _Tee) -> None:
        self._inner = inner
        self._tee = tee

    def __iter__(self) -> Iterator[bytes]:
        for data in self._inner:
            self._tee.feed(data)
            yield data
        self._tee.end()

    def close(self) -> None:
        self._inner.close()


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, tee: _Tee) -> None:
        self._inner = inner
        self._tee = tee

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._inner:
            self._tee.feed(data)
            yield data
        self._tee.end()

    async def aclose(self) -> None:
        await self._inner.aclose()


class RecordingTransport(httpx2.HTTPTransport):
    """What an SDK's HTTP client sends through; `recorder` sees the answers."""

    def __init__(self, recorder: Recorder, **options: Any) -> None:
        super().__init__(**options)
        self._recorder = recorder

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Stream(response.stream, _Tee(self._recorder, request.url.path, response))
        return response


class AsyncRecordingTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, recorder: Recorder, **options: Any) -> None:
        super().__init__(**options)
        self._recorder = recorder

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _AsyncStream(response.stream, _Tee(self._recorder, request.url.path, response))
        return response
