"""What is refused before anybody reads the body: framing, heads, methods, paths, credentials."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from typing import Any

import pytest

from indigo.gateway.server import Patience
from indigo.kernel import api_keys
from tests.support.ports import KEY, World
from tests.support.raw import CHAT, ask, chat, connected, request
from tests.support.waiting import until
from tests.support.wall import DONE, EVENTS, Wall, answer, stream, whole

OK = request()
CHUNKED = "transfer-encoding: chunked\r\n"
BODY = OK.split(b"\r\n\r\n", 1)[1]
HEX = b"%x" % len(BODY)

SMUGGLING = {
    "length and chunked": request(framing=f"content-length: {len(BODY)}\r\n{CHUNKED}"),
    "chunked and length": request(framing=f"{CHUNKED}content-length: 4\r\n"),
    "two lengths": request(framing=f"content-length: {len(BODY)}\r\ncontent-length: 5\r\n"),
    "the same length twice": request(framing=f"content-length: {len(BODY)}\r\n" * 2),
    "a list of lengths": request(framing="content-length: 5, 5\r\n"),
    "+": request(framing=f"content-length: +{len(BODY)}\r\n"),
    "-": request(framing="content-length: -1\r\n"),
    "hex": request(framing="content-length: 0x5\r\n"),
    "length with a space": request(framing="content-length: 5 5\r\n"),
    "empty length": request(framing="content-length: \r\n"),
    "chunked twice": request(framing=CHUNKED * 2),
    "chunked, identity": request(framing="transfer-encoding: chunked, identity\r\n"),
    "identity, chunked": request(framing="transfer-encoding: identity, chunked\r\n"),
    "xchunked": request(framing="transfer-encoding: xchunked\r\n"),
    "vertical tab": request(framing="transfer-encoding: \x0bchunked\r\n"),
    "quoted": request(framing='transfer-encoding: "chunked"\r\n'),
    "space before colon": request(framing="content-length : 5\r\n"),
    "space before colon, chunked": request(framing="transfer-encoding : chunked\r\n"),
    "folded": request(framing="transfer-encoding:\r\n chunked\r\n"),
    "folded header": request(headers="x-a: b\r\n c: d\r\n"),
    "NUL": request(headers="x-a: \x00\r\n"),
    "NUL in a name": request(headers="x-\x00a: b\r\n"),
    "bare CR": request(headers="x-a: b\rcontent-length: 3\r\n"),
    "no host": OK.replace(b"host: x\r\n", b""),
    "two hosts": request(headers="host: y\r\n"),
    "chunk size 0x": request(b"0x5\r\nhello\r\n0\r\n\r\n", framing=CHUNKED),
    "chunk size -1": request(b"-1\r\nhello\r\n0\r\n\r\n", framing=CHUNKED),
    "chunk size +5": request(b"+5\r\nhello\r\n0\r\n\r\n", framing=CHUNKED),
    "chunk size overflows": request(b"10000000000000005\r\nhello\r\n0\r\n\r\n", framing=CHUNKED),
    "chunk too long": request(HEX + b"\r\n" + BODY + b"XX\r\n0\r\n\r\n", framing=CHUNKED),
    "chunk ends in LF": request(b"5\r\nhello\n0\r\n\r\n", framing=CHUNKED),
    "chunk size ends in LF": request(b"5\nhello\r\n0\r\n\r\n", framing=CHUNKED),
    "0.9": b"GET /v1/models\r\n\r\n",
    "version 2": OK.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "version 1.2": OK.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.threat("T87")
async def test_ambiguous_framing_is_refused_once_and_the_connection_closed() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for name, data in SMUGGLING.items():
            async with connected(world.port) as socket:
                socket.send(data + OK)
                got = await socket.answer()
                assert got.status in (400, 505), (name, got)
                assert got.headers["connection"] == "close"
                assert got.json["error"]["type"] == "invalid_request_error"
                assert await socket.closed(), name
        assert wall.received == []
        assert world.sink.opens == []
        assert (await ask(world.port)).status == 200


@pytest.mark.threat("T87")
async def test_trailers_change_nothing_and_extensions_are_ignored() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        body = HEX + b";a=b\r\n" + BODY + b"\r\n0\r\nauthorization: Bearer x\r\nx-a: b\r\n\r\n"
        async with connected(world.port) as socket:
            socket.send(request(body, framing=CHUNKED) + OK)
            assert (await socket.answer()).status == 200
            assert wall.received[0].body == BODY
            assert (await socket.answer()).status == 200


@pytest.mark.threat("T87")
async def test_a_trailer_is_no_header_to_the_other_routes_either() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        seen.extend(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    world = World(app=app)
    async with world.serving(), connected(world.port) as socket:
        body = b"1\r\na\r\n0\r\nauthorization: Bearer x\r\n\r\n"
        socket.send(request(body, path="/other", framing=CHUNKED, key=None))
        assert (await socket.answer(bare=True)).status == 204
        assert seen == [b"host", b"transfer-encoding"]


@pytest.mark.threat("T87", "T88")
async def test_trailers_and_chunk_extensions_without_end_are_cut_off() -> None:
    world = World(max_body=100_000)
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for rest in (HEX + b"\r\n" + BODY + b"\r\n0\r\nx-a: ", b"5;a="):
            async with connected(world.port) as socket:
                socket.send(request(rest, framing=CHUNKED) + b"b" * 600_000)
                assert (await socket.answer()).status in (400, 413)
        assert wall.received == []


@pytest.mark.threat("T88")
async def test_a_head_beyond_its_limits_is_refused_readably() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        cases = {
            "long": (request(path=CHAT + "?" + "a" * 9000), 414),
            "many": (request(headers="".join(f"x-{n}: 1\r\n" for n in range(101))), 431),
            "large": (request(headers=f"x-a: {'b' * 33_000}\r\n"), 431),
            "endless": (OK.split(b"\r\n\r\n")[0] + b"\r\nx-a: " + b"b" * 2_000_000, 431),
            "huge length": (request(framing=f"content-length: {10**17}\r\n"), 413),
            "huger length": (request(framing=f"content-length: {10**18}\r\n"), 400),
        }
        for name, (data, status) in cases.items():
            async with connected(world.port) as socket:
                socket.send(data)
                got = await socket.answer()
                assert got.status == status, name
                assert got.headers["connection"] == "close"
        assert wall.received == []


@pytest.mark.threat("T88")
async def test_a_body_over_the_cap_is_a_413_that_the_client_can_read() -> None:
    world = World(max_body=1_000_000)
    large = chat(x="y" * 1_500_000)
    body = request(large).split(b"\r\n\r\n", 1)[1]
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        got = await ask(world.port, large)
        assert (got.status, got.code) == (413, "request_too_large")
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        got = await ask(world.port, chunked, framing=CHUNKED)
        assert got.status == 413
        async with connected(world.port) as socket:  # endless
            socket.send(request(b"", framing=CHUNKED) + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 40)
            assert (await socket.answer()).status == 413
        assert wall.received == []
        assert (await ask(world.port, chat(x="y" * 990_000))).status == 200


@pytest.mark.promise("P01")
async def test_twenty_mebibytes_are_taken_by_default() -> None:
    world = World()
    body = chat()
    body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": "A" * (20 * 1024 * 1024 - 500)}}]
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        assert (await ask(world.port, body)).status == 200
        assert len(wall.received[0].body) > 20 * 1024 * 1024 - 500


@pytest.mark.threat("T91")
async def test_a_client_that_dawdles_is_told_so_and_closed() -> None:
    world = World(patience=Patience(head=0.3, body=0.3, keep_alive=0.3, stalled=1.0))
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for data in (b"", b"POST /v1/chat", OK[:80], OK[:-5], request(b"5\r\nhe", framing=CHUNKED)):
            async with connected(world.port) as socket:
                socket.send(data)
                got = await socket.answer()
                assert (got.status, got.code) == (408, "client_too_slow")
                assert await socket.closed()
        async with connected(world.port) as socket:
            socket.send(OK)
            assert (await socket.answer()).status == 200
            assert await socket.closed()
        assert len(wall.received) == 1


@pytest.mark.threat("T91")
async def test_bytes_that_trickle_in_do_not_buy_time() -> None:
    world = World(patience=Patience(head=0.4, body=0.4))
    async with world.serving():
        for data in (OK, request(headers=f"x-a: {'b' * 200}\r\n")):
            async with connected(world.port) as socket:
                started = time.monotonic()
                place = 0
                while not socket.reader.at_eof() and time.monotonic() - started < 3 and not socket.writer.is_closing():
                    socket.send(data[place : place + 1])
                    place += 1
                    await asyncio.sleep(0.02)
                    if socket.reader._buffer:  # type: ignore[attr-defined]
                        break
                assert (await socket.answer()).status == 408
                assert time.monotonic() - started < 2


CREDENTIALS: dict[str, tuple[str, int]] = {
    "none": ("", 401),
    "empty": ("authorization: \r\n", 401),
    "bare": ("authorization: Bearer\r\n", 401),
    "blank": ("authorization: Bearer \r\n", 401),
    "tab": ("authorization: Bearer\t\r\n", 401),
    "tab and key": (f"authorization: Bearer\t{KEY}\r\n", 401),
    "basic": (f"authorization: Basic {base64.b64encode(b'a:b').decode()}\r\n", 401),
    "no scheme": (f"authorization: {KEY}\r\n", 401),
    "two": (f"authorization: Bearer {KEY}\r\n" * 2, 401),
    "cookie": (f"cookie: key={KEY}\r\n", 401),
    "x": ("authorization: Bearer X\r\n", 401),
    "non-ASCII": ("authorization: Bearer sk-proj-é\xff\r\n", 401),
    "sql": ("authorization: Bearer ' OR '1'='1\r\n", 401),
    "sleep": ("authorization: Bearer x' OR (SELECT pg_sleep(8)) IS NOT NULL --\r\n", 401),
    "traversal": ("authorization: Bearer ../../etc/passwd\r\n", 401),
    "long": (f"authorization: Bearer {'a' * 30_000}\r\n", 401),
    "wrong checksum": (f"authorization: Bearer {KEY[:-1]}{'a' if KEY[-1] != 'a' else 'b'}\r\n", 401),
    "lower case": (f"authorization: Bearer {KEY.lower()}\r\n", 401),
    "key and more": (f"authorization: Bearer {KEY} {KEY}\r\n", 401),
    "two kinds": (f"authorization: Bearer {KEY}\r\nx-api-key: other\r\n", 400),
    "unknown": (f"authorization: Bearer {api_keys.mint('project')}\r\n", 401),
    "lower scheme": (f"authorization: bearer {KEY}\r\n", 200),
    "the same twice": (f"authorization: Bearer {KEY}\r\nx-api-key: {KEY}\r\n", 200),
}


@pytest.mark.threat("T1", "T4", "T5", "T33")
@pytest.mark.promise("P34")
async def test_only_a_whole_valid_key_in_one_place_opens_the_door() -> None:
    world = World()
    paths = [CHAT, "/v1/completions", "/v1/embeddings", "/v1/rerank", f"{CHAT}?api_key={KEY}", f"{CHAT}?key={KEY}"]
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for name, (headers, status) in CREDENTIALS.items():
            for path in paths if status == 401 else [CHAT]:
                started = time.monotonic()
                got = await ask(world.port, path=path, key=None, headers=headers)
                assert got.status == status, (name, path)
                assert time.monotonic() - started < 0.5
                if status == 401:
                    assert got.json["error"]["type"] == "auth_error"
                    assert got.headers["www-authenticate"] == "Bearer"
                    assert KEY not in got.body.decode()
        assert len(wall.received) == 2
        assert world.limits.in_flight == 0


@pytest.mark.threat("T5")
async def test_a_refused_body_is_thrown_away_and_the_connection_serves_on() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        errors = [
            (request(key="X"), 401), (request(b"{"), 400), (request({"model": "no", "messages": [1]}), 404),
            (request(method="GET"), 405), (request([]), 400), (request(b""), 400),
        ]  # fmt: skip
        async with connected(world.port) as socket:
            for data, status in errors:
                socket.send(data)
                got = await socket.answer()
                assert got.status == status
                assert "connection" not in got.headers
                socket.send(OK)
                assert (await socket.answer()).status == 200
        async with connected(world.port) as socket:  # and all of it pipelined
            for data, _ in errors:
                socket.send(data + OK)
            for _, status in errors:
                assert (await socket.answer()).status == status
                assert (await socket.answer()).status == 200


@pytest.mark.threat("T96")
async def test_any_other_method_is_a_405_that_says_which_one_to_use() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        async with connected(world.port) as socket:
            for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD"):
                socket.send(request(method=method, headers="x-http-method-override: POST\r\n"))
                got = await socket.answer(bare=method == "HEAD")
                assert (got.status, got.headers["allow"]) == (405, "POST"), method
            socket.send(OK)
            assert (await socket.answer()).status == 200
        async with connected(world.port) as socket:
            socket.send(request(method="CONNECT"))
            assert (await socket.answer()).status in (400, 405)
        assert len(wall.received) == 1


HOSTS = [b"x", b"a/?x=", b"localhost:4000/#@x", b"x/v1/chat/completions"]
HEAD = b"".join([
    b"POST %b HTTP/1.1\r\nhost: %b\r\nx-original-url: /v1/chat/completions\r\nx-rewrite-url: /v1/chat/completions\r\n",
    b"x-http-method-override: POST\r\ncontent-length: 2\r\n\r\n{}",
])  # fmt: skip


INSERTED = b"/ // . .. /./ /../ %2e %2F %00 ;a=b ? ?x=/ # \\ @ : %63 \xc3\xa9 * & = %20 + ~".split()
BEFORE = b"http://x http://a@x //x /.. /v1/.. https://x:1 localhost:1/#@".split()
AFTER = b"/ . /x .css ; %20 /..;/ /.. ?stream=true %0a".split()


def mutated(line: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(line) + 1)
        before, after = line[:place], line[place:]
        line = rng.choice([
            before + rng.choice(INSERTED) + after, before + after[1:], before + after[:1].swapcase() + after[1:],
            rng.choice(BEFORE) + line, line + rng.choice(AFTER),
        ])  # fmt: skip
    return line or b"/"


@pytest.mark.threat("T3")
async def test_only_the_exact_path_reaches_a_model_whatever_is_done_to_the_request_line() -> None:
    reached: list[str] = []

    async def app(scope: object, receive: object, send: object) -> None:
        assert isinstance(scope, dict)
        reached.append(str(scope["path"]))  # pyright: ignore[reportUnknownArgumentType]
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})  # type: ignore[operator]
        await send({"type": "http.response.body"})  # type: ignore[operator]

    world = World(app=app)
    rng = random.Random(7)
    paths = [CHAT.encode(), b"/v1/embeddings", b"/v1/completions", b"/v1/rerank"]
    exact = set(paths)
    refused = 0
    async with Wall().serving() as wall, world.serving():
        lines = [mutated(rng.choice(paths), rng) for _ in range(20_000)]
        place, size = 0, 100
        while place < len(lines):
            batch = lines[place : place + size]
            size = 100
            async with connected(world.port) as socket:
                socket.send(b"".join(HEAD % (line, rng.choice(HOSTS)) for line in batch))
                for line in batch:
                    try:
                        got = await socket.answer()
                    except EOFError:  # an answer before was still under way when a bad line came: alone, then
                        assert len(batch) > 1, line
                        size = 1
                        break
                    place += 1
                    hot = line.partition(b"?")[0] in exact
                    assert got.status in ((401, 400) if hot else (404, 400, 414)), line  # no key: a hot path is a 401
                    refused += not hot
                    if got.headers.get("connection") == "close":
                        break
        assert wall.received == []
        assert world.grants.finds == 0
    assert len(reached) > 10_000
    assert refused > 15_000


@pytest.mark.threat("T93")
async def test_a_request_id_is_taken_over_only_if_it_is_plain() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for given in ("abc-DEF_1.2", "a" * 128):
            got = await ask(world.port, headers=f"x-request-id: {given}\r\n")
            assert got.headers["x-request-id"] == given
            assert wall.received[-1].headers["x-request-id"] == given
            assert world.sink.events[-1].request_id == given
        for given in ("", "a" * 129, "a b", "é", "a\tb", "<x>", "a;b", "{{7*7}}", "../x"):
            got = await ask(world.port, headers=f"x-request-id: {given}\r\n")
            assert got.headers["x-request-id"].startswith("req_"), given
            bad = await ask(world.port, b"{", headers=f"x-request-id: {given}\r\n")
            assert bad.json["error"]["request_id"] == bad.headers["x-request-id"]


@pytest.mark.threat("T93")
async def test_nothing_a_client_or_endpoint_says_becomes_a_header() -> None:
    world = World()
    evil = "x\r\nset-cookie: a=b\r\n\r\nHTTP/1.1 200 OK"
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        got = await ask(world.port, chat(model=evil))
        assert got.status == 404
        assert "set-cookie" not in got.headers
        wall.scripts.append(
            [whole({"error": {"message": evil, "code": evil}}, 400, set_cookie="a=b", server="s", retry_after="1")]
        )
        got = await ask(world.port, chat(user=evil))
        assert got.status == 400
        assert not {"set-cookie", "server"} & set(got.headers)


@pytest.mark.threat("T94", "T95")
async def test_what_the_client_sends_beside_the_body_stays_here() -> None:
    world = World()
    hops = (
        "connection: authorization, x-request-id, content-length\r\ncookie: session=secret\r\n"
        f"x-forwarded-for: 1.2.3.4\r\nx-api-key: {KEY}\r\nproxy-authorization: Basic eDp5\r\nx-custom: secret\r\n"
    )
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url, headers=(("authorization", "Bearer upstream-key"),))
        assert (await ask(world.port, headers=hops)).status == 200
        sent = wall.received[0].headers
        assert sent["authorization"] == "Bearer upstream-key"
        assert set(sent) == {
            "host", "content-type", "accept", "accept-encoding", "user-agent", "x-request-id", "authorization",
            "content-length",
        }  # fmt: skip
        assert "secret" not in str(wall.received)
        assert KEY not in str(wall.received)


@pytest.mark.threat("T98")
async def test_no_answer_may_be_cached() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for body in (chat(), b"{", chat(model="no")):
            assert (await ask(world.port, body)).headers["cache-control"] == "no-store"
        wall.always = [stream()]
        assert (await ask(world.port, chat(stream=True))).headers["cache-control"] == "no-store"


async def test_a_client_that_waits_to_be_told_to_go_on_is_told() -> None:
    world = World()
    expects = "expect: 100-continue\r\n"
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        head, body = request(headers=expects).split(b"\r\n\r\n", 1)
        async with connected(world.port) as socket:
            for _ in range(2):
                socket.send(head + b"\r\n\r\n")
                assert (await socket.answer()).status == 100
                socket.send(body)
                assert (await socket.answer()).status == 200
            socket.send(OK + head + b"\r\n\r\n")  # behind another: only in its turn
            assert (await socket.answer()).status == 200
            assert (await socket.answer()).status == 100
            socket.send(body)
            assert (await socket.answer()).status == 200
        async with connected(world.port) as socket:
            socket.send(request(headers=expects, key=None).split(b"\r\n\r\n", 1)[0] + b"\r\n\r\n")
            got = await socket.answer(seconds=2)
            assert (got.status, got.headers["connection"]) == (401, "close")


async def test_an_offer_to_upgrade_is_ignored_and_the_body_still_read() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for offer in (
            "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n",
            "connection: upgrade\r\nupgrade: websocket\r\n",
        ):
            async with connected(world.port) as socket:
                data = request(headers=offer)
                socket.send(data[:-5])
                await asyncio.sleep(0.02)
                socket.send(data[-5:] + OK)
                got = await socket.answer()
                assert (got.status, got.headers["connection"]) == (200, "close")
                assert await socket.closed()
        assert len(wall.received) == 2


async def test_http_1_0_is_answered_and_streamed_to_until_the_close() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        async with connected(world.port) as socket:
            socket.send(OK.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"host: x\r\n", b""))
            got = await socket.answer()
            assert (got.status, got.headers["connection"]) == (200, "close")
        wall.always = [stream()]
        async with connected(world.port) as socket:
            socket.send(request(chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0"))
            got = await socket.answer()
            assert "transfer-encoding" not in got.headers
            assert got.body == b"".join(EVENTS[:4]) + DONE


async def test_pipelined_requests_are_answered_in_order_and_many_do_no_harm() -> None:
    world = World()
    async with Wall(whole(answer("last"))).serving() as wall, world.serving():
        world.model("m", wall.url)
        wall.scripts.append([0.1, whole(answer("first"))])
        async with connected(world.port) as socket:
            refused = request(b"", method="GET", key=None)
            socket.send(OK + refused * 3_000 + OK)
            assert (await socket.answer()).json["choices"][0]["message"]["content"] == "first"
            for _ in range(3_000):
                assert (await socket.answer()).status == 405
            assert (await socket.answer()).json["choices"][0]["message"]["content"] == "last"
        await until(lambda: world.limits.in_flight == 0)
