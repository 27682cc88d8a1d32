"""The mock upstream: its answers, and that each fault is the fault it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from indigo.engines import mock
from tests.engines.llama_client import ask, exchange

MESSAGES = [{"role": "user", "content": "nonce-4711"}]


@pytest.fixture
async def upstream() -> AsyncIterator[mock.Mock]:
    served = await mock.serve("127.0.0.1")
    yield served
    await served.close()


def address(upstream: mock.Mock) -> str:
    return f"http://127.0.0.1:{upstream.port}"


async def raw(upstream: mock.Mock, model: str, *, stream: bool = True, wait: float = 5.0) -> bytes:
    """All bytes of the answer until its connection ends, or `wait` has passed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    options = {"stream": stream, "stream_options": {"include_usage": True}}
    body = json.dumps({"model": model, "messages": MESSAGES, **options}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    read = bytearray()
    try:
        async with asyncio.timeout(wait):
            while part := await reader.read(65536):
                read += part
                if read.endswith(b"0\r\n\r\n"):
                    break
    except TimeoutError:
        pass
    finally:
        writer.close()
    return bytes(read)


async def test_a_completion_echoes_the_prompt_and_is_recorded(upstream: mock.Mock) -> None:
    body = {"model": "mock", "messages": MESSAGES}
    status, answer = await ask(address(upstream), "/v1/chat/completions", body)
    assert status == 200
    assert answer["choices"][0]["message"]["content"].startswith("nonce-4711 word1")
    assert answer["usage"]["completion_tokens"] == 10
    [received] = upstream.received
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.header("content-type") == "application/json"
    assert json.loads(received.body) == body


async def test_a_stream_has_its_chunks_its_usage_and_its_end(upstream: mock.Mock) -> None:
    body: Any = {
        "model": "mock",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _, text = await asyncio.to_thread(exchange, address(upstream), "/v1/chat/completions", body)
    events = text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[-3][6:])["usage"]["completion_tokens"] == 10
    assert len(events) == 1 + 10 + 1 + 1 + 2


async def test_the_other_operations_answer(upstream: mock.Mock) -> None:
    for path, body in {
        "/v1/completions": {"prompt": "x"},
        "/v1/embeddings": {"input": ["a", "b"]},
        "/v1/rerank": {"query": "a", "documents": ["b"]},
        "/v1/models": None,
        "/health": None,
    }.items():
        status, _ = await ask(address(upstream), path, body)
        assert status == 200, path


async def test_delays_chunks_and_usage_can_be_set(tmp_path: Path) -> None:
    options = mock.Options(first_byte=0.02, between=0.01, chunks=3, usage=False)
    served = await mock.serve(tmp_path / "m.sock", options=options)
    started = asyncio.get_running_loop().time()
    body = {"model": "mock", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    _, text = await asyncio.to_thread(exchange, f"unix:{tmp_path}/m.sock", "/v1/chat/completions", body)
    assert asyncio.get_running_loop().time() - started >= 0.02 + 5 * 0.01
    assert "usage" not in text
    assert text.count("data: {") == 5
    await served.close()


async def test_a_client_that_leaves_is_counted() -> None:
    served = await mock.serve("127.0.0.1", options=mock.Options(between=0.05))
    await raw(served, "mock", wait=0.1)
    async with asyncio.timeout(5):
        while not served.abandoned:
            await asyncio.sleep(0.01)
    await served.close()


@pytest.mark.parametrize(
    ("fault", "has"),
    [
        ("400", b"HTTP/1.1 400 "),
        ("401", b"HTTP/1.1 401 "),
        ("403", b"HTTP/1.1 403 "),
        ("404", b"HTTP/1.1 404 "),
        ("429", b"Retry-After: 2\r\n"),
        ("500", b"HTTP/1.1 500 "),
        ("503", b"Retry-After: 1\r\n"),
        ("redirect", b"HTTP/1.1 307 Temporary Redirect\r\nContent-Type: application/json\r\nContent-Length"),
        ("headers-only", b"text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("garbage", b"garbage that is not HTTP"),
        ("garbage-body", b'"mess\x00\xff'),
        ("html", b"<!DOCTYPE html>"),
        ("error-200", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99"),
        ("empty", b"Content-Length: 0\r\n\r\n"),
        ("empty-stream", b"chunked\r\n\r\n0\r\n\r\n"),
        ("error-first", b'data: {"error":'),
        ("error-middle", b'data: {"error":'),
        ("no-done", b'"usage":'),
        ("after-done", b"[DONE]\n\n\r\n"),
        ("usage-twice", b"[DONE]"),
        ("no-usage", b"[DONE]"),
        ("crlf", b"}\r\n\r\n\r\n"),
        ("comments", b": ping\n\n"),
        ("one-byte", b"1\r\nd\r\n1\r\na\r\n1\r\nt\r\n"),
        ("split-utf8", b"\xc3\r\n"),
        ("invalid-utf8", b"w\xff\xfe"),
        ("nan", b'"logprob":NaN'),
        ("wrong-type", b"application/octet-stream"),
        ("gzip", b"Content-Encoding: gzip"),
        ("long-length", b"[DONE]\n\n"),
        ("short-length", b"[DONE]\n\n"),
        ("half-stream", b"data: {"),
        ("half-reset", b""),
        ("stall", b"data: {"),
        ("slow", b"1\r\nd\r\n"),
    ],
)
async def test_each_fault_is_what_its_name_says(upstream: mock.Mock, fault: str, has: bytes) -> None:
    try:
        answer = await raw(upstream, f"mock-fault-{fault}", wait=0.1)
    except ConnectionResetError:
        assert fault == "half-reset"
        return
    assert has in answer
    usages = {"usage-twice": 2, "no-usage": 0}.get(fault)
    assert usages is None or answer.count(b'"usage"') == usages
    if fault in ("half-stream", "stall", "headers-only", "slow"):
        assert not answer.endswith(b"0\r\n\r\n")
        assert b"[DONE]" not in answer


async def test_silence_is_silent_and_a_reset_resets(upstream: mock.Mock) -> None:
    assert await raw(upstream, "mock-fault-no-answer", wait=0.05) == b""
    with pytest.raises(ConnectionResetError):
        await raw(upstream, "mock-fault-reset")


async def test_a_huge_event_is_a_hundred_mebibytes_on_one_line(upstream: mock.Mock) -> None:
    answer = await raw(upstream, "mock-fault-huge-event", wait=30)
    assert answer.count(b"x" * 65536) == 1600


async def test_every_fault_has_a_model_and_other_names_are_refused(upstream: mock.Mock) -> None:
    _, listed = await ask(address(upstream), "/v1/models")
    assert {model["id"] for model in listed["data"]} == {"mock", *mock.FAULT_MODELS}
    status, body = await ask(address(upstream), "/v1/chat/completions", {"model": "mock-fault-x", "messages": []})
    assert status == 404
    assert "half-stream" in body["error"]["message"]
