"""What a body may and may not be, that it arrives exactly as it was sent, and that reading it holds nobody up."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indigo.gateway import body as bodies
from indigo.gateway import checks, connection, refusals
from indigo.kernel import api_keys
from indigo.kernel.errors import InvalidRequest
from tests.support.ports import World
from tests.support.raw import ask, chat, connected, request
from tests.support.wall import Wall

START = b'{"model":"m","messages":[{"role":"user","content":"x"}]'


def with_field(text: bytes) -> bytes:
    return START + b"," + text + b"}"


REFUSED: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  ",
    "null": b"null",
    "a list": b"[]",
    "a string": b'"m"',
    "a number": b"1",
    "cut": START,
    "trailing garbage": START + b"}x",
    "two bodies": START + b"}" + START + b"}",
    "a comment": START + b"/* */}",
    "a trailing comma": START + b",}",
    "single quotes": b"{'model':'m'}",
    "NaN": with_field(b'"x":NaN'),
    "Infinity": with_field(b'"x":-Infinity'),
    "hex": with_field(b'"x":0x10'),
    "a leading zero": with_field(b'"x":01'),
    "plus": with_field(b'"x":+1'),
    "a lone minus": with_field(b'"x":-'),
    "a bare dot": with_field(b'"x":1.'),
    "a lone surrogate": with_field(b'"x":"\\ud800"'),
    "a lone surrogate as a name": with_field(b'"\\ud800":1'),
    "a swapped pair": with_field(b'"x":"\\udc00\\ud800"'),
    "NUL": with_field(b'"x":"\x00"'),
    "a line break in a string": with_field(b'"x":"\n"'),
    "a bad escape": with_field(b'"x":"\\q"'),
    "invalid UTF-8": with_field(b'"x":"\xff"'),
    "overlong": with_field(b'"x":"\xc0\xaf"'),
    "a surrogate in UTF-8": with_field(b'"x":"\xed\xa0\x80"'),
    "BOM": b"\xef\xbb\xbf" + START + b"}",
    "UTF-16": (START + b"}").decode().encode("utf-16"),
    "UTF-32": (START + b"}").decode().encode("utf-32"),
    "65 levels": with_field(b'"x":' + b"[" * 65 + b"]" * 65),
    "100,000 levels": with_field(b'"x":' + b"[" * 100_000),
    "65 objects": with_field(b'"x":' + b'{"a":' * 65 + b"1" + b"}" * 65),
    "a million digits": with_field(b'"x":' + b"9" * 1_000_000),
    "600 digits": with_field(b'"seed":' + b"1" * 600),
    "model twice": b'{"model":"m","model":"n","messages":[1]}',
    "model twice, once escaped": b'{"model":"m","mode\\u006c":"n","messages":[1]}',
    "model twice, escaped first": b'{"\\u006dodel":"m","model":"n","messages":[1]}',
    "model thrice, the same": b'{"model":"m","model":"m","model":"m","messages":[1]}',
    "stream twice": with_field(b'"stream":true,"stream":false'),
    "max_tokens twice": with_field(b'"max_tokens":1,"max_tokens":12'),
    "max_tokens twice, a prefix": with_field(b'"max_tokens":12,"max_tokens":1'),
    "n twice": with_field(b'"n":1 , "n" : 2'),
    "options twice": with_field(b'"stream_options":{},"stream_options":{"a":1}'),
    "no model": b'{"messages":[1]}',
    "model null": b'{"model":null,"messages":[1]}',
    "a number as model": b'{"model":1,"messages":[1]}',
    "an empty model": b'{"model":"","messages":[1]}',
    "a long model": b'{"model":"' + b"m" * 600 + b'","messages":[1]}',
    "no messages": b'{"model":"m"}',
    "empty messages": b'{"model":"m","messages":[ ]}',
    "messages as text": b'{"model":"m","messages":"x"}',
    "stream as text": with_field(b'"stream":"true"'),
    "max_tokens as text": with_field(b'"max_tokens":"5"'),
    "max_tokens 0": with_field(b'"max_tokens":0'),
    "max_tokens huge": with_field(b'"max_tokens":1e18'),
    "n huge": with_field(b'"n":1000000000'),
    "n 0": with_field(b'"n":0'),
    "temperature as text": with_field(b'"temperature":"hot"'),
    "temperature endless": with_field(b'"temperature":1e999'),
    "options as a list": with_field(b'"stream":true,"stream_options":[]'),
}


@pytest.mark.threat("T89")
async def test_what_is_no_proper_request_is_a_400_that_says_why() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        async with connected(world.port) as socket:
            for name, body in REFUSED.items():
                socket.send(request(body))
                got = await socket.answer()
                assert got.status == 400, (name, got)
                assert got.json["error"]["type"] == "invalid_request_error"
                assert len(got.json["error"]["message"]) < 600
        assert wall.received == []
        assert world.sink.opens == []


ACCEPTED: dict[str, bytes] = {
    "64 levels": with_field(b'"x":' + b"[" * 63 + b"]" * 63),
    "brackets in a string": with_field(b'"x":"' + b'[{\\"' * 1_000 + b'"'),
    "digits in a string": with_field(b'"x":"' + b"1" * 10_000 + b'"'),
    "a quoted name in a text": with_field(b'"x":"\\"model\\":1", "y":["model","model"]'),
    "a tool with the same names": with_field(
        b'"tools":[{"function":{"name":"a","parameters":{"model":1,"stream":{"n":2}}}}]'
    ),
    "escaped text": with_field(b'"x":"\\u0041\\u006c\\u003c\\u00e9\\ud83d\\ude00\\u0000"'),
    "spaces": b' \r\n\t{ "model" : "m" ,\n"messages" : [ 1 ] } \n',
    "a key of 64 KiB": with_field(b'"' + b"k" * 65_536 + b'":1'),
    "100,000 keys": with_field(b'"x":{' + b",".join(b'"k%d":1' % n for n in range(100_000)) + b"}"),
    "a far number": with_field(b'"x":1e99999,"y":-0.0,"z":' + b"9" * 500),
    "surrogate pairs, raw and escaped": with_field('"x":"😀\\ud83d\\ude00"'.encode()),
    "letters of every width": with_field('"x":"é€𝄞\u2028\ufeff\ufffe\u202e"'.encode()),
}


@pytest.mark.threat("T89")
async def test_what_is_odd_but_right_arrives_byte_for_byte() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        for name, body in ACCEPTED.items():
            for one in (body, body + b" " * (checks.LARGE + 1)):
                got = await ask(world.port, one)
                assert got.status == 200, (name, got)
                assert wall.received[-1].body == one


def naughty() -> list[str]:
    """Strings that have broken programs."""
    given = [
        "",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\x00",
        "\x7f",
        "\x80",
        "\x1b[31m",
        "\u00a0",
        "\u00ad",
        "\u200b",
        "\u202e",
        "\u2028",
        "\ufeff",
        "\ufffd",
        "\uffff",
        "\U0010ffff",
        "é",
        "e\u0301",
        "ß",
        "İ",
        "ﬁ",
        "Ⅷ",
        "٣",
        "😀",
        "👩‍👩‍👧‍👦",
        "🇪🇺",
        "❤️",
        "田中さん",
        "الكل",
        "Z̷͇a̸",
        "null",
        "undefined",
        "None",
        "NaN",
        "true",
        "0",
        "-0",
        "1e999",
        "0x0",
        "1/0",
        "007",
        "１２３",
        "<script>alert(1)</script>",
        "'; DROP TABLE users;--",
        "1' OR '1'='1",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "{0}",
        "%s%n",
        "$(touch x)",
        "`id`",
        "; ls",
        "| cat",
        "&& x",
        "../../etc/passwd",
        "..\\..\\x",
        "file:///etc/passwd",
        "http://[::1]",
        "C:\\CON",
        "/dev/null",
        "con.txt",
        "a" * 10_000,
        "\\",
        "\\\\",
        '"',
        '\\"',
        '"}',
        "'",
        "/*",
        "*/",
        "//",
        "#",
        "--",
        "<!--",
        "]]>",
        "&lt;",
        "%00",
        "%0d%0aset-cookie:x",
        "\r\nx-a: b",
        "data: [DONE]",
        "\n\ndata: [DONE]\n\n",
        "event: error",
        "[DONE]",
        "<|im_start|>",
        "<|endoftext|>",
        "<tool_call>",
        "</s>",
        "[INST]",
        "__proto__",
        "constructor",
        "toString",
        "model",
        '"model":"x"',
        "\\u0000",
        "\\ud800",
        "Bearer x",
        "sk-proj-x",
        "admin",
        "root",
        "*",
        "?",
        ".",
        "..",
        "~",
        "@",
        ":",
        "Scunthorpe",
        "\x01\x02\x03",
        "\u0378",
        "ﷺ",
        "𒐫",
        "꧅",
        "\u061c",
        "\u115f",
        "⁦x⁩",
    ]
    assert len(set(given)) >= 100
    return given


@pytest.mark.threat("T89", "T93")
async def test_naughty_strings_pass_exactly_and_break_nothing() -> None:
    world = World()
    async with Wall().serving() as wall, world.serving():
        world.model("m", wall.url)
        async with connected(world.port) as socket:
            for text in naughty():
                for escaped in (True, False):
                    body = json.dumps(
                        chat(user=text, messages=[{"role": text, "content": text}], **{f"x{text}": text}),
                        ensure_ascii=escaped,
                    ).encode()
                    socket.send(request(body))
                    got = await socket.answer()
                    assert got.status == 200, (text, got)
                    assert wall.received[-1].body == body
                    for served in ("m", "served"):
                        world.model("m", wall.url, served=served)
                    socket.send(request(body))
                    assert (await socket.answer()).status == 200
                    assert json.loads(wall.received[-1].body) == {**json.loads(body), "model": "served"}
                    world.model("m", wall.url)
                    socket.send(request(json.dumps(chat(model=text), ensure_ascii=escaped).encode()))
                    got = await socket.answer()
                    assert got.status in (400, 404), (text, got)
                    assert got.json["error"]["param"] == "model"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=4),
    max_leaves=30,
)


@pytest.mark.threat("T89")
@given(value=VALUES, escaped=st.booleans(), indent=st.sampled_from([None, 1]))
@settings(deadline=None, max_examples=200)
def test_any_json_is_read_by_the_quick_and_the_sliced_way_alike(value: Any, escaped: bool, indent: int | None) -> None:
    body = json.dumps({**chat(), "x": value}, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    checks.small(body)
    asyncio.run(checks.large(body))
    checks.check_duplicates(body)
    assert bodies.read(body, "chat.completions").model == "m"
    changed = json.loads(bodies.rewritten(body, {"model": "z"}))
    assert changed == {**json.loads(body), "model": "z"}


@pytest.mark.threat("T89")
@given(data=st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0n1 mode', max_size=60).map(str.encode))
@settings(deadline=None, max_examples=300)
def test_no_bytes_make_anything_but_a_refusal(data: bytes) -> None:
    for body in (data, with_field(data), START + data, START + b',"x":"' + data + b'"}'):
        try:
            bodies.read(body, "chat.completions")
        except InvalidRequest:
            continue
        json.loads(body)
        asyncio.run(checks.large(body))


HOSTILE: dict[str, bytes] = {
    "deep": b"[" * 2**20,
    "blocks of 60": with_field(b'"x":[' + b",".join([b"[" * 60 + b"]" * 60] * 160_000) + b"]"),
    "blocks of 70": with_field(b'"x":[' + b",".join([b"[" * 70 + b"]" * 70] * 140_000) + b"]"),
    "quotes": b'"' * (20 * 2**20),
    "escaped quotes": b'{"model":"' + b'\\"' * (10 * 2**20),
    "backslashes": b'{"model":"' + b"\\" * (20 * 2**20 - 12) + b'"}',
    "empty texts": with_field(b'"x":[' + b'"",' * (6 * 2**20) + b"1]"),
    "empty objects": with_field(b'"x":[' + b"{}," * (6 * 2**20) + b"1]"),
    "escapes": with_field(b'"x":"' + b"\\u0061" * (3 * 2**20) + b'"'),
    "many names": with_field(b",".join(b'"k%d":1' % n for n in range(1_000_000))),
    "models in texts": with_field(b'"x":[' + b'"model",' * (2 * 2**20) + b"1]"),
    "digits": with_field(b'"x":"' + b"1" * (20 * 2**20 - 100) + b'"'),
    "a long number": with_field(b'"x":' + b"1" * (10 * 2**20)),
    "two bytes a letter": with_field(b'"x":"' + "é".encode() * (9 * 2**20) + b'"'),
    "a plain picture": with_field(b'"x":"' + b"QUJD" * (5 * 2**20 - 100) + b'"'),
}  # fmt: skip


async def watch(gaps: list[float]) -> None:
    """Gathers how long the event loop did not come round."""
    last = time.thread_time()
    while True:
        await asyncio.sleep(0)
        now = time.thread_time()
        gaps.append(now - last)
        last = now


@pytest.mark.threat("T90")
async def test_twenty_mebibytes_of_anything_are_checked_in_linear_time_and_in_slices() -> None:
    for name, body in HOSTILE.items():
        gaps: list[float] = []
        watcher = asyncio.ensure_future(watch(gaps))
        started = time.process_time()
        try:
            await checks.large(body)
            await asyncio.sleep(0)
            bodies.read(body, "chat.completions")
        except InvalidRequest:
            pass
        watcher.cancel()
        assert gaps, name
        assert time.process_time() - started < 5, name  # hours, where something is quadratic
        print(
            f"{name:20} {max(gaps) * 1e3:6.1f} ms at a stretch, {(time.process_time() - started) * 1e3:6.0f} ms in all"
        )


@pytest.mark.threat("T90")
def test_every_pattern_of_the_gateway_is_linear() -> None:
    size = 100_000
    hostile = [
        b"a" * size,
        b"sk-" * (size // 3),
        b"sk-proj-" + b"A" * size,
        b"\\u00" * (size // 4),
        b'"' + b'\\"' * (size // 2),
        b'"' * size,
        b" " * size,
        b"{," * (size // 2),
        b"sk" + b"-_" * (size // 2) + b"!",
        b"\\u006" * (size // 5),
    ]
    for text in hostile:
        for pattern in (connection.REQUEST_ID, checks._KEY, bodies._ESCAPED_NAME):  # pyright: ignore[reportPrivateUsage]
            started = time.process_time()
            pattern.fullmatch(text)
            pattern.match(text)
            pattern.search(text) if pattern is bodies._ESCAPED_NAME else None  # pyright: ignore[reportPrivateUsage]
            assert time.process_time() - started < 0.1, (pattern, text[:20])
        for words in (refusals._KEY_LIKE, api_keys.PATTERN):  # pyright: ignore[reportPrivateUsage]
            started = time.process_time()
            words.sub("", text.decode())
            words.fullmatch(text.decode())
            assert time.process_time() - started < 0.1, (words, text[:20])
