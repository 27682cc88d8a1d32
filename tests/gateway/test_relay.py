"""What goes through untouched, what is changed, and what is recorded of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.ports import World
from tests.support.raw import ask, chat
from tests.support.waiting import until
from tests.support.wall import DONE, EVENTS, Wall, answer, chunk, event, head, stream, usage, whole


@pytest.mark.promise("P01")
async def test_a_body_that_needs_no_change_reaches_the_endpoint_byte_for_byte() -> None:
    world = World()
    body = b'{ "model" : "m",\t"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"d"}}]' \
        b'}],"future":{"b":1.50,"a":[1e2,null]} , "logprobs":true,"n":2 }'  # fmt: skip
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        got = await ask(world.port, body)
        assert got.status == 200
        assert got.json == answer()
        assert wall.received[0].body == body
        assert wall.received[0].line == "POST /v1/chat/completions HTTP/1.1"


@pytest.mark.promise("P01")
async def test_an_alias_is_replaced_and_every_other_field_stays_as_it_came() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url, served="other/name")
        await ask(world.port, b'{"model":"m","messages":[{"a":1.50}],"x":[1e2, 3],"t":"\\u00e9"}')
        sent = wall.received[0].body
        assert json.loads(sent)["model"] == "other/name"
        assert b'"messages":[{"a":1.50}]' in sent
        assert b'"x":[1e2, 3]' in sent
        assert b'"t":"\\u00e9"' in sent


@pytest.mark.promise("P01", "P01")
async def test_usage_is_asked_for_and_its_event_kept_only_for_those_who_asked() -> None:
    world = World()
    nulls = [one.replace(b'"choices"', b'"usage":null,"choices"') for one in EVENTS[:4]]
    for wanted in (False, True):
        for events in (EVENTS, (*nulls, *EVENTS[4:])):
            async with Wall(stream(*events)).serving() as wall, world.serving():
                world.model("m", wall.url)
                more: dict[str, Any] = {"stream_options": {"include_usage": wanted, "x": 1}} if wanted else {}
                got = await ask(world.port, chat(stream=True, **more))
                assert json.loads(wall.received[0].body)["stream_options"]["include_usage"] is True
                assert got.complete
                assert got.text == "Hello wide world"
                assert got.events[-1] == "[DONE]"
                assert any(one != "[DONE]" and one.get("usage") for one in got.events) is wanted
                await until(lambda: len(world.sink.events) == 1)
                said = world.sink.events.pop()
                assert (said.prompt_tokens, said.completion_tokens, said.estimated) == (7, 3, False)
                assert said.outcome == "completed"


@pytest.mark.promise("P04")
async def test_a_stream_may_be_asked_for_in_the_url() -> None:
    world = World()
    async with Wall(stream()).serving() as wall, world.serving():
        world.model("m", wall.url)
        got = await ask(world.port, path="/v1/chat/completions?stream=true")
        assert got.headers["content-type"].startswith("text/event-stream")
        assert got.text == "Hello wide world"
        assert json.loads(wall.received[0].body)["stream"] is True


@pytest.mark.promise("P01")
async def test_events_pass_as_they_are_with_fields_nobody_knows() -> None:
    world = World()
    first = b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm","tool_calls":[{"index":1}]},' \
        b'"logprobs":{"content":[]}},{"index":1,"delta":{}}],"new":1.50}\n\n'  # fmt: skip
    async with Wall(stream(first, event(finish="stop"), DONE)).serving() as wall, world.serving():
        world.model("m", wall.url)
        got = await ask(world.port, chat(stream=True, n=2))
        assert got.body == first + event(finish="stop") + DONE


@pytest.mark.promise("P01")
async def test_every_operation_goes_to_its_own_path() -> None:
    world = World()
    asks: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": "x"},
        "/v1/embeddings": {"input": ["x"]},
        "/v1/rerank": {"query": "x", "documents": ["y"]},
    }
    async with (
        Wall(whole({"data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}})).serving() as wall,
        world.serving(),
    ):
        world.model("m", wall.url)
        for path, fields in asks.items():
            got = await ask(world.port, {"model": "m", **fields}, path=path)
            assert got.status == 200
            assert wall.received[-1].line == f"POST {path} HTTP/1.1"
            assert world.sink.events[-1].prompt_tokens == 5
            if path != "/v1/completions":
                assert (await ask(world.port, {"model": "m", "stream": True, **fields}, path=path)).status == 400


@pytest.mark.promise("P01")
async def test_an_engine_that_ignores_a_named_tool_is_sent_only_that_tool() -> None:
    import msgspec

    world = World()
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        world.routes.models["m"] = msgspec.structs.replace(world.routes.models["m"], single_tool_choice=True)
        named = {"type": "function", "function": {"name": "b"}}
        assert (await ask(world.port, chat(tools=tools, tool_choice=named))).status == 200
        sent = json.loads(wall.received[0].body)
        assert sent["tools"] == [tools[1]]
        assert sent["tool_choice"] == "required"
        named["function"] = {"name": "c"}
        assert (await ask(world.port, chat(tools=tools, tool_choice=named))).status == 400
        assert world.sink.events[-1].outcome == "upstream_rejected"
        assert world.limits.in_flight == 0
        assert (await ask(world.port, chat(tools=tools, tool_choice="auto"))).status == 200
        assert json.loads(wall.received[1].body)["tools"] == tools


@pytest.mark.threat("F19")
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
async def test_a_stream_cut_anywhere_reads_the_same(ends: str) -> None:
    world = World()
    events = (event("é€𝄞"), b": ping\n\n", b"id: 1\nevent: m\n" + event(" b"), event(finish="stop"), usage(), DONE)
    said = b"".join(events).replace(b"\n", ends.encode())
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for cut in range(1, len(said)):
            wall.scripts.append([head() + chunk(said[:cut]), 0.002, chunk(said[cut:]) + b"0\r\n\r\n"])
            got = await ask(world.port, chat(stream=True))
            assert (got.text, got.complete, got.events[-1]) == ("é€𝄞 b", True, "[DONE]"), cut
        assert {(one.completion_tokens, one.outcome) for one in world.sink.events} == {(3, "completed")}


@pytest.mark.threat("F19")
async def test_a_stream_of_single_bytes_reads_the_same() -> None:
    world = World()
    said = b"".join(EVENTS).replace(b"\n", b"\r\n")
    async with Wall(head(), *(chunk(bytes([one])) for one in said), b"0\r\n\r\n").serving() as wall, world.serving():
        world.model("m", wall.url)
        got = await ask(world.port, chat(stream=True))
        assert got.text == "Hello wide world"


@pytest.mark.threat("T97")
async def test_text_that_looks_like_events_stays_text() -> None:
    world = World()
    evil = 'a\n\ndata: [DONE]\n\nevent: error\r\n\u2028data: {"error":1}'
    async with (
        Wall(
            stream(event(evil), b"event: x\nid: 7\nretry: 1\n" + event("!"), event(finish="stop"), DONE)
        ).serving() as wall,
        world.serving(),
    ):
        world.model("m", wall.url)
        got = await ask(world.port, chat(stream=True))
        assert got.text == evil + "!"
        assert len(got.events) == 4
        assert b"retry" not in got.body
        assert b"id: 7" not in got.body
