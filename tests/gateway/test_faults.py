"""What the client sees, and what is recorded, when an endpoint misbehaves in every way we could think of."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

import msgspec
import openai
import pytest

from indigo.gateway.endpoints import Endpoint
from tests.support.ports import KEY, World
from tests.support.raw import Answer, ask, chat
from tests.support.waiting import until
from tests.support.wall import DONE, END, EVENTS, Script, Wall, answer, chunk, event, head, stream, usage, whole

HALF = head() + b"".join(chunk(one) for one in EVENTS[:2])
SECRET = "upstream-secret-0123456789"
OTHER = "sk-somebody-elses-0123456789"
BODY = json.dumps(answer()).encode()
NAN = b'data: {"choices":[{"index":0,"delta":{},"logprobs":NaN}]}\n\n'


def settled(world: World, *endpoints: Endpoint) -> bool:
    return (
        world.limits.in_flight == 0
        and world.sweeper.size == 0
        and len(world.sink.events) == len(world.sink.opens)
        and not world.accounts.open
        and all(endpoint.in_flight == 0 for endpoint in endpoints)
    )


@dataclass(frozen=True)
class Before:
    """A fault before the first event: what the client gets when nobody else can be asked."""

    script: Script
    status: int
    code: str


FAULTS = {
    "reset before the head": Before(["reset"], 503, "upstream_unavailable"),
    "closed before the head": Before(["close"], 503, "upstream_unavailable"),
    "no answer at all": Before(["hang"], 504, "upstream_timeout"),
    "500": Before([whole({"error": {"message": f"at {SECRET}"}}, 500)], 503, "upstream_unavailable"),
    "502 of a proxy": Before([whole(b"<html>Bad Gateway</html>", 502)], 503, "upstream_unavailable"),
    "503": Before([whole({}, 503)], 503, "upstream_unavailable"),
    "504": Before([whole({}, 504)], 503, "upstream_unavailable"),
    "529": Before([whole({}, 529)], 503, "upstream_unavailable"),
    "429": Before([whole({}, 429)], 429, "upstream_rate_limited"),
    "401": Before([whole({"error": {"message": f"bad {SECRET}"}}, 401)], 502, "upstream_failed"),
    "402": Before([whole({}, 402)], 502, "upstream_failed"),
    "403": Before([whole({}, 403)], 502, "upstream_failed"),
    "408": Before([whole({}, 408)], 502, "upstream_failed"),
    "302": Before([whole({}, 302, location="http://127.0.0.1:9/x")], 502, "upstream_failed"),
    "204": Before([b"HTTP/1.1 204 X\r\n\r\n"], 502, "upstream_failed"),
    "101": Before([b"HTTP/1.1 101 X\r\nupgrade: h2c\r\n\r\n", "close"], 503, "upstream_unavailable"),
    "not HTTP": Before([b"\x00\xff garbage\r\n\r\n", "close"], 503, "upstream_unavailable"),
    "a head without end": Before(
        [b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 90_000, "hang"], 503, "upstream_unavailable"
    ),
    "HTML": Before([whole(b"<html>", content_type="text/html")], 502, "upstream_failed"),
    "an error as a 200": Before([whole({"error": {"message": SECRET}})], 502, "upstream_failed"),
    "an empty 200": Before([whole(b"")], 502, "upstream_failed"),
    "a list": Before([whole(b"[]")], 502, "upstream_failed"),
    "gzip": Before([whole(gzip.compress(BODY), content_encoding="gzip")], 502, "upstream_failed"),
    "length too long": Before([whole(BODY, content_length="9999"), "close"], 502, "upstream_failed"),
    "length too short": Before([whole(BODY, content_length="20"), "close"], 502, "upstream_failed"),
    "chunk size cut": Before([head("application/json") + b"1", "close"], 502, "upstream_failed"),
    "chunk size wrong": Before([head("application/json") + b"zz\r\n{}\r\n", "close"], 502, "upstream_failed"),
    "not UTF-8": Before([whole(BODY.replace(b"wide", b"\xff\xfe"))], 502, "upstream_failed"),
    "NaN": Before([whole(b'{"choices":[{"logprobs":NaN}]}')], 502, "upstream_failed"),
    "nested too deep": Before([whole(b'{"a":' + b"[" * 100_000)], 502, "upstream_failed"),
    "two answers": Before([whole(answer()) + whole(answer())], 502, "upstream_failed"),
    "silence after the head": Before(
        [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "hang"], 504, "upstream_timeout"
    ),
}
STREAMED = {
    "an error as the first event": Before([stream(b'data: {"error":{"message":"x"}}\n\n')], 502, "upstream_failed"),
    "garbage first": Before([stream(b"data: nonsense\n\n", *EVENTS)], 502, "upstream_failed"),
    "an empty stream": Before([stream(b"")], 502, "upstream_failed"),
    "only [DONE]": Before([stream(DONE)], 502, "upstream_failed"),
    "only comments": Before([head() + chunk(b": ping\n\n") + END], 502, "upstream_failed"),
    "comments for ever": Before([head() + chunk(b": ping\n\n"), "hang"], 504, "upstream_timeout"),
    "no stream": Before([whole(answer())], 502, "upstream_failed"),
    "silence after the stream's head": Before([head(), "hang"], 504, "upstream_timeout"),
    "one event of 9 MiB": Before([head() + chunk(b"data: " + b"x" * 9 * 2**20), "hang"], 502, "upstream_failed"),
    "lines without end": Before([head() + chunk(b"data: x\n" * 1_200_000), "hang"], 502, "upstream_failed"),
    "letters cut in two": Before([stream(event("x").replace(b"x", b"\xff"), DONE)], 502, "upstream_failed"),
}  # fmt: skip


async def check_before(case: Before, *, streaming: bool) -> None:
    world = World(first_byte=0.4)
    async with Wall(*case.script).serving() as bad, Wall().serving() as good, world.serving():
        good.always = [stream()] if streaming else [whole(answer())]
        endpoints = world.model("m", bad.url, headers=(("authorization", f"Bearer {SECRET}"),))
        got = await ask(world.port, chat(stream=streaming))
        assert (got.status, got.code) == (case.status, case.code), got
        assert SECRET not in str(got)
        assert got.complete
        assert "127.0.0.1" not in got.body.decode()
        if case.status in (429, 503):
            assert 1 <= int(got.headers["retry-after"]) <= 60
        said = world.sink.events[-1]
        assert (said.outcome, said.status, said.cost_micros) == ("upstream_failed", case.status, 0)
        assert (said.prompt_tokens, said.completion_tokens) == (0, 0)
        if case.status != 504:  # with another endpoint at hand nothing of it is seen
            endpoints += world.model("m2", bad.url, good.url)
            for _ in range(3):
                got = await ask(world.port, chat("m2", stream=streaming))
                assert got.status == 200
                assert (got.text if streaming else got.json["choices"][0]["message"]["content"]) == "Hello wide world"
                assert world.sink.events[-1].outcome == "completed"
                assert world.sink.events[-1].endpoint == "ep_m2_1"
        await until(lambda: settled(world, *endpoints))


@pytest.mark.threat("F18", "F19", "F20")
@pytest.mark.promise("P52")
@pytest.mark.parametrize("case", FAULTS)
async def test_a_fault_before_the_answer_is_hidden_by_another_endpoint_or_told_in_type(case: str) -> None:
    await check_before(FAULTS[case], streaming=False)


@pytest.mark.threat("F18", "F19", "F20")
@pytest.mark.promise("P52")
@pytest.mark.parametrize("case", {**FAULTS, **STREAMED})
async def test_a_fault_before_the_first_event_is_hidden_or_told_in_type(case: str) -> None:
    await check_before({**FAULTS, **STREAMED}[case], streaming=True)


BROKEN: dict[str, Script] = {
    "closed": ["close"],
    "reset": [0.05, "reset"],
    "closed within an event": [chunk(EVENTS[2][:20]), "close"],
    "ended without an end": [END],
    "an error event": [chunk(b'data: {"error":{"message":"boom"}}\n\n'), END],
    "a named error event": [chunk(b'event: error\ndata: {"error":{"message":"boom"}}\n\n' + DONE) + END],
    "garbage": [chunk(b"data: {]\n\n") + chunk(EVENTS[3]) + chunk(DONE) + END],
    "NaN": [chunk(NAN) + chunk(DONE) + END],
    "not UTF-8": [chunk(event("\x7f").replace(b"\\u007f", b"\xff")) + chunk(DONE) + END],
    "a chunk cut": [b"ff\r\ndata: {", "close"],
    "chunk size wrong": [b"xyz\r\n", "close"],
    "stall": ["hang"],
    "an endless event": [chunk(b"data: " + b"x" * 9 * 2**20), "hang"],
    "deep": [chunk(b'data: {"choices":' + b"[" * 100_000 + b"\n\n"), "hang"],
}


@pytest.mark.threat("F18", "F19", "F20")
@pytest.mark.parametrize("case", BROKEN)
async def test_a_stream_that_breaks_never_looks_complete(case: str) -> None:
    world = World(idle=0.3)
    async with Wall(HALF, 0.02, *BROKEN[case]).serving() as wall, Wall(stream()).serving() as other, world.serving():
        endpoints = world.model("m", wall.url)
        got = await ask(world.port, chat(stream=True))
        check_broken(got)
        said = world.sink.events[-1]
        assert (said.outcome, said.completion_tokens, said.estimated) == ("upstream_failed", 2, True)
        assert said.status == (504 if case == "stall" else 502)
        await until(lambda: settled(world, *endpoints))
        await until(lambda: wall.open == 0 or case in ("ended without an end",))
        assert other.received == []
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{world.port}/v1", api_key=KEY, max_retries=0)
        seen = ""
        try:
            async for piece in await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            ):
                seen += piece.choices[0].delta.content or ""
        except openai.APIError:
            seen += "!"
        assert seen == "Hello wide!"
        await client.close()


def check_broken(got: Answer) -> None:
    assert got.status == 200
    assert not got.complete
    assert b"[DONE]" not in got.body
    assert b'finish_reason": "stop' not in got.body
    *_, last = got.events
    assert last["error"]["type"] == "upstream_error"
    assert last["error"]["request_id"] == got.headers["x-request-id"]
    assert "boom" not in str(last)


@pytest.mark.threat("F18", "F19", "T60")
async def test_streams_that_are_odd_but_whole_pass() -> None:
    odd: dict[str, list[bytes]] = {
        "no [DONE]": list(EVENTS[:5]),
        "no usage": [*EVENTS[:4], DONE],
        "two [DONE]": [*EVENTS, DONE],
        "data after [DONE]": [*EVENTS, b"data: evil\n\n", event("evil")],
        "no blank line at the end": [*EVENTS[:3], (EVENTS[3] + DONE)[:-2]],
        "comments": [b": x\n\n", *EVENTS[:2], b":\n\n", *EVENTS[2:]],
        "a BOM of CRs": [b"\r\n\r\n", *EVENTS],
        "all in one": [b"".join(EVENTS)],
    }
    world = World()
    async with Wall().serving() as wall, world.serving():
        endpoints = world.model("m", wall.url)
        for name, events in odd.items():
            for rest in (END, b""):
                wall.scripts.append(
                    [head() + b"".join(chunk(one) for one in events) + rest, *([] if rest else ["close"])]
                )
                if name in ("no [DONE]", "no blank line at the end") and not rest:
                    wall.scripts.pop()
                    continue
                got = await ask(world.port, chat(stream=True))
                assert (got.text, got.complete, got.events[-1]) == ("Hello wide world", True, "[DONE]"), name
                assert got.body.count(b"[DONE]") == 1
                assert b"evil" not in got.body
                used = world.sink.events[-1]
                assert used.outcome == "completed"
                assert used.estimated is (name in ("no usage", "no blank line at the end"))
        await until(lambda: settled(world, *endpoints))


@pytest.mark.threat("T60")
async def test_hostile_usage_is_not_believed() -> None:
    world = World()
    words = EVENTS[:4]
    cases: dict[str, tuple[list[bytes], int, int, bool]] = {
        "negative": ([*words, usage(-5, -5)], -1, 4, True),
        "huge": ([*words, usage(10**18, 10**18)], -1, 4, True),
        "a string": ([*words, usage("7", "3")], -1, 4, True),
        "a fraction": ([*words, usage(7.5, 3.5)], -1, 4, True),
        "a list": ([*words, b'data: {"choices":[],"usage":[]}\n\n'], -1, 4, True),
        "twice": ([*words, usage(1, 1), usage(9, 5)], 9, 5, False),
        "before the content": ([usage(9, 0), *words], 9, 4, True),
        "cached beyond the prompt": ([*words, usage(7, 3, prompt_tokens_details={"cached_tokens": 99})], 7, 3, False),
    }
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for name, (events, prompt, completion, estimated) in cases.items():
            wall.scripts.append([stream(*events, DONE)])
            got = await ask(world.port, chat(stream=True))
            assert got.text == "Hello wide world", name
            said = world.sink.events[-1]
            assert said.prompt_tokens == prompt or prompt < 0, name
            assert (said.completion_tokens, said.estimated) == (completion, estimated), name
            assert 0 <= said.cached_tokens <= said.prompt_tokens < 100
        hostiles: list[Any] = [-1, 1e18, "x", [], {"prompt_tokens": -1}, {"prompt_tokens": "7"}, None]
        for hostile in hostiles:
            wall.scripts.append([whole({**answer(), "usage": hostile})])
            assert (await ask(world.port)).status == 200
            assert world.sink.events[-1].estimated
            assert 0 < world.sink.events[-1].prompt_tokens < 100


@pytest.mark.threat("F18", "F19")
async def test_a_refusal_that_is_about_the_request_is_passed_on_once_and_scrubbed() -> None:
    world = World()
    async with Wall().serving() as wall, Wall().serving() as other, world.serving():
        endpoints = world.model("m", wall.url, other.url, headers=(("authorization", f"Bearer {SECRET}"),))
        for status in (400, 404, 405, 409, 413, 415, 418, 421, 422, 425, 451):
            message = f"too long for {SECRET} and {OTHER} at {wall.url} and {other.url} {'x' * 9000}"
            error = {"error": {"message": message, "code": "context_length_exceeded", "param": "messages"}}
            wall.always = other.always = [whole(error, status)]
            for streaming in (False, True):
                asked = len(wall.received) + len(other.received)
                got = await ask(world.port, chat(stream=streaming))
                assert got.status == status
                assert got.json["error"]["message"].startswith("too long for [redacted]")
                assert (got.code, got.json["error"]["param"]) == ("context_length_exceeded", "messages")
                assert SECRET not in str(got)
                assert OTHER not in str(got)
                assert got.body.count(b"127.0.0.1") == 1  # what answered is not told where it stands
                assert len(got.body) < 6_000
                assert len(wall.received) + len(other.received) == asked + 1
                said = world.sink.events[-1]
                assert (said.outcome, said.status, said.cost_micros) == ("upstream_rejected", status, 0)
        assert all(endpoint.state(0) == "healthy" for endpoint in endpoints)
        for body in (
            b"plain",
            b'{"detail":[{"loc":1}]}',
            b'{"error":"text"}',
            b"\xff",
            b'{"error":{"message":null}}',
            b"",
        ):
            wall.always = other.always = [whole(body, 400)]
            got = await ask(world.port)
            assert got.status == 400
            assert got.json["error"]["message"]
        await until(lambda: settled(world, *endpoints))


@pytest.mark.threat("F18", "F21")
async def test_a_pause_that_an_endpoint_asks_for_is_kept() -> None:
    world = World()
    async with Wall(whole({}, 429, retry_after="7")).serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        got = await ask(world.port)
        assert (got.status, got.headers["retry-after"]) == (429, "7")
        for _ in range(5):
            got = await ask(world.port)
            assert (got.status, got.code) == (503, "no_healthy_endpoint")
            assert 1 <= int(got.headers["retry-after"]) <= 9
        assert len(wall.received) == 1
        assert endpoint.in_flight == 0


@pytest.mark.threat("F21")
async def test_an_outage_is_not_made_worse_by_retries() -> None:
    world = World()
    async with Wall(whole({}, 500)).serving() as one, Wall(whole({}, 500)).serving() as two, world.serving():
        endpoints = world.model("m", one.url, two.url)
        for number in range(300):
            if number % 5 == 0:
                for endpoint in endpoints:  # no breaker: the budget alone must hold
                    endpoint.succeeded(endpoint.begin(1e12), 1e12)
            assert (await ask(world.port)).status == 503
        assert len(one.received) + len(two.received) <= 300 * 1.1 + 11


@pytest.mark.threat("F19")
async def test_a_connection_that_was_closed_just_as_it_was_used_is_replaced_unseen() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        (endpoint,) = world.model("m", wall.url)
        for _ in range(20):
            wall.scripts = [[whole(answer())], ["close"], [whole(answer())]]
            assert (await ask(world.port)).status == 200
            assert (await ask(world.port)).status == 200
        assert endpoint.in_flight == 0
        assert {said.attempts for said in world.sink.events} == {1}
        wall.scripts = [["close"], ["close"], ["close"]]  # but only once
        assert (await ask(world.port)).status == 503


@pytest.mark.threat("F19")
async def test_an_endpoint_that_is_not_there_is_said_to_be_unreachable() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("gone", "http://127.0.0.1:9/v1")
        world.model("nowhere", "http://name.invalid/v1")
        world.model("plain", wall.url.replace("http://", "https://"))
        for model in ("gone", "nowhere", "plain"):
            got = await ask(world.port, chat(model))
            assert (got.status, got.code) == (503, "upstream_unavailable")
            assert "127.0.0.1" not in got.body.decode()
        world.model("both", "http://127.0.0.1:9/v1", wall.url)
        for _ in range(5):
            assert (await ask(world.port, chat("both"))).status == 200
        assert world.limits.in_flight == 0


@pytest.mark.promise("P52")
async def test_a_fallback_model_is_asked_only_if_the_key_may_use_it() -> None:
    world = World()
    async with Wall(whole({}, 500)).serving() as bad, Wall().serving() as good, world.serving():
        world.model("m", bad.url, fallbacks=("other",))
        world.model("other", good.url)
        assert (await ask(world.port)).status == 200
        assert json.loads(good.received[0].body)["model"] == "other"
        for digest, grant in world.grants.live.items():
            world.grants.live[digest] = msgspec.structs.replace(grant, models=frozenset({"m"}))
        assert (await ask(world.port)).status == 503
        assert len(good.received) == 1
