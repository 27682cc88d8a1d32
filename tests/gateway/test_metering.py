"""Exactly one usage event for every admitted request, and everything given back, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import os
import random

import pytest

from indigo.gateway.endpoints import Endpoint
from indigo.gateway.ports import Grant, Price
from indigo.kernel import api_keys
from indigo.kernel.errors import Unavailable
from tests.support.ports import World
from tests.support.raw import Answer, ask, chat, connected, request
from tests.support.waiting import until
from tests.support.wall import DONE, END, Step, Wall, answer, chunk, event, head, stream, usage, whole

TOKENS = 8
WORDS = [event(f" {number}") for number in range(TOKENS)]


def settled(world: World, *endpoints: Endpoint) -> bool:
    return (
        world.limits.in_flight == 0
        and world.sweeper.size == 0
        and len(world.sink.events) == len(world.sink.opens)
        and not world.accounts.open
        and all(endpoint.in_flight == 0 for endpoint in endpoints)
    )


@pytest.mark.threat("T58")
@pytest.mark.promise("P01")
@pytest.mark.parametrize("token", [0, 1, TOKENS // 2, TOKENS - 1])
async def test_a_client_that_leaves_stops_the_endpoint_and_pays_for_what_was_made(token: int) -> None:
    world = World()
    script: list[Step] = [head() + b"".join(chunk(one) for one in WORDS[:token]), "hang"]
    async with Wall(*script).serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        async with connected(world.port) as socket:
            socket.send(request(chat(stream=True)))
            await until(lambda: len(wall.received) == 1)
            if token:
                await socket.reader.readuntil(f" {token - 1}".encode())
        await until(lambda: wall.open == 0, seconds=1)
        await until(lambda: settled(world, endpoint))
        (said,) = world.sink.events
        assert (said.outcome, said.status) == ("client_closed", 499)
        assert (said.completion_tokens, said.estimated) == (token, True)
        assert said.prompt_tokens > 0
        assert endpoint.state(0) == "healthy"


@pytest.mark.threat("T58")
async def test_a_client_that_leaves_after_the_last_word_has_not_aborted() -> None:
    world = World()
    words = [*WORDS, event(finish="stop")]
    async with Wall().serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        wall.scripts.append([head() + b"".join(chunk(one) for one in words), "hang"])
        async with connected(world.port) as socket:
            socket.send(request(chat(stream=True)))
            await socket.reader.readuntil(b"stop")
        await until(lambda: settled(world, endpoint))
        wall.scripts.append([head() + b"".join(chunk(one) for one in [*words, usage(9, TOKENS), DONE]), "hang"])
        async with connected(world.port) as socket:
            socket.send(request(chat(stream=True)))
            await socket.reader.readuntil(b"[DONE]")
        await until(lambda: settled(world, endpoint))
        after_stop, after_done = world.sink.events
        assert (after_stop.outcome, after_stop.completion_tokens, after_stop.estimated) == (
            "completed",
            TOKENS + 1,
            True,
        )
        assert (after_done.outcome, after_done.completion_tokens, after_done.estimated) == ("completed", TOKENS, False)
        await until(lambda: wall.open == 0)  # even though it never ended its transfer


@pytest.mark.threat("T58")
async def test_a_client_that_leaves_a_whole_answer_stops_the_endpoint_too() -> None:
    world = World()
    async with Wall("hang").serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        async with connected(world.port) as socket:
            socket.send(request())
            await until(lambda: len(wall.received) == 1)
        await until(lambda: wall.open == 0, seconds=1)
        await until(lambda: settled(world, endpoint))
        assert (world.sink.events[0].outcome, world.sink.events[0].estimated) == ("client_closed", True)


@pytest.mark.threat("T58")
async def test_a_stream_is_cancelled_even_when_another_request_waits_behind_it() -> None:
    world = World()
    async with Wall(head() + chunk(WORDS[0]), *(0.02, chunk(WORDS[1])) * 200).serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        async with connected(world.port) as socket:
            socket.send(request(chat(stream=True)) + request() + request())
            await socket.reader.readuntil(b" 0")
        await until(lambda: wall.open == 0, seconds=2)
        await until(lambda: settled(world, endpoint))
        assert [said.outcome for said in world.sink.events] == ["client_closed"]
        assert len(wall.received) == 1


def sockets() -> int:
    """Open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.threat("T58")
async def test_two_thousand_aborts_leave_nothing_behind() -> None:
    world = World()
    rng = random.Random(3)
    script: list[Step] = [
        head(),
        *(chunk(one) for one in WORDS),
        0.001,
        chunk(event(finish="stop")) + chunk(usage()) + chunk(DONE),
        END,
    ]
    async with Wall().serving() as wall, world.serving():
        endpoints = [*world.model("m", wall.url), *world.model("n", wall.url)]
        before = sockets()

        async def aborted(number: int) -> None:
            streaming = rng.random() < 0.7
            data = request(chat(rng.choice("mn"), stream=streaming))
            wall.always = script if rng.random() < 0.8 else [whole(answer()), "close"]
            try:
                async with connected(world.port) as socket:
                    socket.send(data if rng.random() < 0.9 else data[: rng.randrange(len(data))])
                    await asyncio.sleep(rng.random() * 0.01)
                    if rng.random() < 0.2:
                        socket.writer.transport.abort()
            except ConnectionError:
                pass

        for start in range(0, 2_000, 50):
            await asyncio.gather(*(aborted(number) for number in range(start, start + 50)))
        await until(lambda: settled(world, *endpoints), seconds=10)
        assert len({said.id for said in world.sink.events}) == len(world.sink.events) > 500
        assert {said.outcome for said in world.sink.events} <= {"completed", "client_closed", "upstream_failed"}
        await until(lambda: not world.server.server_state.connections)
        await until(lambda: not world.server.server_state.tasks)
        await until(lambda: wall.open == 0, seconds=10)  # idle connections are closed after a few seconds
        await until(lambda: sockets() <= before + 2)


@pytest.mark.threat("F24")
async def test_at_shutdown_streams_finish_in_time_or_are_told() -> None:
    world = World()
    words = [*(chunk(one) for one in WORDS)]
    quick = [head(), words[0], 0.4, chunk(event(finish="stop")) + chunk(DONE), END]
    async with Wall().serving() as wall:
        async with world.serving(drain=1):
            (endpoint,) = world.model("m", wall.url)
            wall.scripts = [quick, [head(), words[0], "hang"], ["hang"]]
            answers: list[asyncio.Future[Answer]] = []
            for body in (chat(stream=True), chat(stream=True), chat()):
                answers.append(asyncio.ensure_future(ask(world.port, body)))
                await until(lambda: len(wall.received) == len(answers))
            await until(lambda: len([run for run in world.accounts.open if run.relay and run.relay.begun]) == 2)
        finished, cut, refused = await asyncio.gather(*answers)
        assert (finished.complete, finished.events[-1]) == (True, "[DONE]")
        assert not cut.complete
        assert cut.events[-1]["error"]["code"] == "shutting_down"
        assert (refused.status, refused.code) == (503, "shutting_down")
        outcomes = sorted(said.outcome for said in world.sink.events)
        assert outcomes == ["completed", "interrupted", "interrupted"]
        assert world.limits.in_flight == 0
        assert endpoint.in_flight == 0


async def test_what_is_not_admitted_costs_nothing_and_is_counted() -> None:
    world = World(most=1)
    async with Wall("hang").serving() as wall, world.serving():
        world.model("m", wall.url)
        async with connected(world.port) as socket:
            socket.send(request())
            await until(lambda: len(wall.received) == 1)
            got = await ask(world.port)
            assert (got.status, got.code) == (503, "server_overloaded")
            assert got.headers["retry-after"] == "1"
            assert (await ask(world.port, chat("none"))).status == 404
        await until(lambda: settled(world))
        world.sink.failure = Unavailable("The journal is full.")
        assert (await ask(world.port)).status == 503
        assert world.limits.in_flight == 0
        assert len(world.sink.events) == 1
        assert world.metrics.refused == {("chat.completions", 503): 2, ("chat.completions", 404): 1}


async def test_the_price_is_that_of_the_tokens_and_of_the_model_that_answered() -> None:
    world = World()
    said = {
        **answer(),
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 400}},
    }
    async with Wall(whole(said)).serving() as wall, world.serving():
        world.model("m", wall.url, price=Price(input=2_000_000, cached_input=500_000, output=4_000_000, request=7))
        await ask(world.port)
        assert world.sink.events[0].cost_micros == 600 * 2 + 400 // 2 + 500 * 4 + 7


async def test_a_key_known_only_to_the_database_is_looked_up_without_holding_others() -> None:
    world = World()
    key = api_keys.mint("project")
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        grant = Grant(key_id="k", kind="project", org_id="o")
        world.grants.slow[api_keys.digest(key.encode())] = grant
        assert (await ask(world.port, key=key)).status == 200
        assert world.sink.events[0].key_id == "k"
        world.grants.failure = Unavailable("The database is down.")
        assert (await ask(world.port, key=key)).status == 503
        world.grants.failure = ValueError("boom")
        got = await ask(world.port, key=key)
        assert (got.status, got.code) == (500, "internal_error")
        assert "boom" not in got.body.decode()
        assert json.loads(wall.received[0].body)["model"] == "m"
        assert world.limits.in_flight == 0


async def test_a_stream_that_goes_on_after_its_end_loses_its_connection() -> None:
    world = World()
    script = [stream(*WORDS, event(finish="stop"), DONE).removesuffix(END)] + [chunk(b"data: {}\n\n"), 0.01] * 500
    async with Wall(*script).serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        assert (await ask(world.port, chat(stream=True))).complete
        await until(lambda: wall.open == 0, seconds=4)
        await until(lambda: settled(world, endpoint))
