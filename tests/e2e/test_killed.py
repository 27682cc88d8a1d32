"""Processes that die at the worst moment, and clients that leave: nothing is lost, and nothing is counted twice."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.support.databases import PostgresqlServer, create_database, drop_database
from tests.support.openapi import Recorder
from tests.support.product import CHAT, FIGURE, Product, Starter, Upstream, wait_for
from tests.support.waiting import until

HELLO: Any = [{"role": "user", "content": "Hello!"}]
Figure = Callable[[str, object], None]
BROKEN = (openai.APIError, httpx2.TransportError)


async def stream(client: openai.AsyncOpenAI, tokens: int) -> openai.AsyncStream[Any]:
    """A stream that is as long as `tokens`."""
    return await client.chat.completions.create(
        model=CHAT, messages=HELLO, stream=True, max_tokens=tokens, extra_body={"ignore_eos": True}
    )


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def slow(upstreams: Callable[..., Upstream], tmp_path: Path) -> list[str]:
    """Options that add the model `slow`, whose streams last for minutes."""
    _, url = upstreams("--between", "0.03", "--chunks", "5000")
    file = tmp_path / "providers.yaml"
    file.write_text(f"providers: [{{name: slow, base_url: '{url}', models: [{{id: slow}}]}}]")
    return ["--providers", str(file)]


async def slow_stream(client: openai.AsyncOpenAI) -> openai.AsyncStream[Any]:
    return await client.chat.completions.create(model="slow", messages=HELLO, stream=True)


async def chat(client: openai.AsyncOpenAI) -> str | None:
    answer = await client.chat.completions.create(model=CHAT, messages=HELLO)
    return answer.choices[0].message.content


async def rows_of(product: Product, count: int) -> list[dict[str, Any]]:
    """The usage rows, once there are `count`; they stay so many."""
    rows: list[dict[str, Any]] = []

    async def enough() -> bool:
        rows[:] = await product.usage()
        return len(rows) >= count

    await until(enough)
    assert len(rows) == count, [row["outcome"] for row in rows]
    return rows


async def test_an_engine_that_is_killed_in_mid_stream_is_told_to_the_client_and_replaced(
    start: Starter, recorder: Recorder, record_property: Figure
) -> None:
    product = start()
    async with product.async_client(recorder) as client:
        running = await stream(client, 7000)
        with pytest.raises(openai.APIError) as broken:
            await _drain_and_kill(running, product.children(), 20)
        assert (broken.value.type, broken.value.code) == ("upstream_error", "upstream_truncated")
        assert recorder.complete_streams == 0
        killed = time.monotonic()
        while True:
            try:
                assert await chat(client)
                break
            except (openai.InternalServerError, openai.APIConnectionError):
                assert time.monotonic() - killed < 15, product.logs()
                await asyncio.sleep(0.02)
        took = time.monotonic() - killed
    record_property(FIGURE, f"{took:.2f} s from the engine's kill -9 to its next answer")
    assert took < 5, "it is asked as soon as it is up again, whatever its breaker holds against it"
    rows = await rows_of(product, product.admitted())
    [row] = [row for row in rows if row["stream"]]
    assert (row["outcome"], bool(row["estimated"])) == ("upstream_failed", True)
    assert row["completion_tokens"] >= 19
    assert rows[-1]["outcome"] == "completed"


async def _drain_and_kill(running: openai.AsyncStream[Any], processes: list[int], after: int) -> None:
    seen = 0
    async for _ in running:
        seen += 1
        if seen == after:
            for process in processes:
                os.kill(process, signal.SIGKILL)


@pytest.mark.promise("P72")
async def test_a_server_that_is_killed_in_mid_stream_has_every_request_counted_once(
    empty_database_url: str, start: Starter, slow: list[str]
) -> None:
    product = start(*slow, database_url=empty_database_url)
    engines = product.children()
    async with product.async_client() as client:
        for _ in range(4):
            assert await chat(client)
        running = [await slow_stream(client) for _ in range(3)]
        reading = asyncio.gather(*(_drain(one) for one in running), return_exceptions=True)
        for _ in range(25):  # the journal notes a stream's progress a few times a second
            await asyncio.sleep(0.04)
        assert "indigo_requests_in_flight 3.0\n" in product.get("/metrics").text
        product.kill()
        ends = await reading
    assert all(isinstance(end, BROKEN) for end in ends), ends
    wait_for(lambda: not any(Path(f"/proc/{engine}/cmdline").exists() for engine in engines))
    product.start()
    rows = await rows_of(product, 7)
    assert Counter(row["outcome"] for row in rows) == {"completed": 4, "interrupted": 3}
    for row in rows:
        assert bool(row["estimated"]) == (row["outcome"] == "interrupted")
        assert row["completion_tokens"] > 5
        assert row["prompt_tokens"] > 0
    async with product.async_client() as client:
        assert await chat(client)
    assert product.stop() == 0
    assert len(await product.usage()) == 8


async def _drain(running: openai.AsyncStream[Any]) -> int:
    return len([chunk async for chunk in running])


@pytest.mark.parametrize("way", [Product.stop, Product.interrupt], ids=["SIGTERM", "Ctrl-C"])
async def test_a_server_told_to_stop_lets_streams_end_and_stores_their_usage(
    empty_database_url: str, start: Starter, way: Callable[[Product], Any]
) -> None:
    product = start(database_url=empty_database_url)
    async with product.async_client() as client:
        running = [await stream(client, 1500) for _ in range(4)]
        for one in running:
            await anext(aiter(one))
        ended = asyncio.ensure_future(asyncio.to_thread(way, product))
        reasons = await asyncio.gather(*(_reason(one) for one in running))
        with pytest.raises(openai.APIConnectionError):
            await chat(client)
        await ended
    assert product.process is not None
    assert await asyncio.to_thread(product.process.wait, 20) == 0
    assert reasons == ["length"] * 4
    rows = await product.usage()
    assert [(row["outcome"], row["completion_tokens"], bool(row["estimated"])) for row in rows] == [
        ("completed", 1500, False)
    ] * 4
    assert product.children() == []


async def _reason(running: openai.AsyncStream[Any]) -> str | None:
    reason = None
    async for chunk in running:
        reason = (chunk.choices[0].finish_reason if chunk.choices else None) or reason
    return reason


async def test_clients_that_leave_at_any_moment_are_counted_each(start: Starter) -> None:
    product = start()
    port = int(product.base_url.rpartition(":")[2])
    chance = random.Random(7)
    answered = 0
    turns = asyncio.Semaphore(16)

    async def one(streamed: bool, most: int, pause: float) -> None:
        nonlocal answered
        async with turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_request(product.key, streamed))
            await asyncio.sleep(pause)
            head = await reader.read(min(most, 15)) if most else b""
            if most > 15:
                answered += head == b"HTTP/1.1 200 OK"
                await reader.read(most)
            if most % 2:
                writer.transport.abort()
            writer.close()

    await asyncio.gather(
        *(one(chance.random() < 0.8, chance.choice([0, 15, 100, 1000, 5001]), chance.random() / 50) for _ in range(200))
    )
    await until(lambda: "indigo_requests_in_flight 0" in product.get("/metrics").text)
    admitted = product.admitted()
    assert answered <= admitted <= 200
    assert answered > 50
    rows = await rows_of(product, admitted)
    outcomes = Counter(row["outcome"] for row in rows)
    assert set(outcomes) <= {"completed", "client_closed"}
    assert outcomes["client_closed"] > 20
    assert all(row["estimated"] or row["outcome"] == "completed" or row["completion_tokens"] for row in rows)
    assert product.stop() == 0
    assert len(await product.usage()) == admitted


def _request(key: str, streamed: bool) -> bytes:
    body = b'{"model":"%s","stream":%s,"messages":[{"role":"user","content":"Hello!"}]}' % (
        CHAT.encode(),
        b"true" if streamed else b"false",
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + body


async def test_a_journal_that_is_delivered_again_makes_no_second_row(
    empty_database_url: str, start: Starter, slow: list[str]
) -> None:
    product = start(*slow, database_url=empty_database_url)
    async with product.async_client() as client:
        for _ in range(5):
            assert await chat(client)
        running = await slow_stream(client)
        await anext(aiter(running))
        product.kill()
        with pytest.raises(BROKEN):
            await _drain(running)
    spool, copy = product.data_dir / "spool", product.folder / "copy"
    shutil.copytree(spool, copy)
    product.start()
    before = await rows_of(product, 6)
    assert product.stop() == 0
    shutil.copytree(copy, spool, dirs_exist_ok=True)
    left = {path.name for path in copy.iterdir()}
    assert left
    product.start()
    await until(lambda: not left & {path.name for path in spool.iterdir()})
    assert product.stop() == 0
    assert await product.usage() == before


@pytest.fixture
def empty_postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    name = create_database(postgresql_server, "template1")
    yield postgresql_server.url(name)
    drop_database(postgresql_server, name)


@pytest.mark.promise("P71")
async def test_two_servers_that_start_at_once_on_an_empty_database_share_it(
    empty_postgresql_url: str, start: Starter
) -> None:
    servers = [start(database_url=empty_postgresql_url, wait=False) for _ in range(2)]
    for server in servers:
        server.wait_ready()
    [first] = [server.printed for server in servers if server.printed]
    for server in servers:
        server.printed = first
        async with server.async_client() as client:
            assert await chat(client)
    assert await servers[0].rows("SELECT count(*) AS n FROM users") == [{"n": 1}]
    assert await servers[0].rows("SELECT count(*) AS n FROM api_keys") == [{"n": 2}]
    for server in servers:
        assert server.stop() == 0
    assert len(await servers[0].usage()) == 2


async def test_a_worker_that_is_killed_is_replaced_and_its_requests_are_counted(
    start: Starter, slow: list[str]
) -> None:
    product = start("--workers", "2", *slow)
    workers = [child for child in product.children() if b"indigo.processes.workers" in _command(child)]
    assert len(workers) == 2
    async with product.async_client() as client:
        running = [await slow_stream(client) for _ in range(3)]
        for one in running:
            await anext(aiter(one))
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for one in running:
            with pytest.raises(BROKEN):
                await _drain(one)
        wait_for(lambda: len(set(product.children()) - set(workers)) >= 4, what=product.logs)
        answer = None
        while answer is None:
            try:
                answer = await chat(client)
            except openai.APIConnectionError:
                await asyncio.sleep(0.02)
    rows = await rows_of(product, 4)
    assert Counter(row["outcome"] for row in rows) == {"completed": 1, "interrupted": 3}
    assert product.stop() == 0
