"""Log lines: for people, for machines, without secrets, and never in anyone's way."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from indigo.kernel import api_keys, logs
from indigo.kernel.errors import InvalidRequest, NotFound

pytestmark = pytest.mark.promise("P80")

log = logging.getLogger("indigo.test")


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(format: str, act: Any) -> list[str]:
    sink = io.StringIO()
    running = logs.start("info", format, sink)
    try:
        act()
    finally:
        running.stop()
    return sink.getvalue().splitlines()


def json_line(act: Any) -> dict[str, Any]:
    (line,) = lines("json", act)
    return json.loads(line)


def test_a_json_line_has_time_level_logger_and_message() -> None:
    entry = json_line(lambda: log.info("started in %d ms", 5))
    assert entry.pop("time").endswith("Z")
    assert entry == {"level": "info", "logger": "indigo.test", "message": "started in 5 ms"}


def test_the_request_id_of_the_context_is_in_the_line() -> None:
    token = logs.request_id_var.set("req_1")
    try:
        assert json_line(lambda: log.info("hello"))["request_id"] == "req_1"
        assert lines("text", lambda: log.info("hello"))[0].endswith("indigo.test: hello request_id=req_1")
    finally:
        logs.request_id_var.reset(token)


def test_an_error_has_its_code_and_its_traceback_in_one_json_line() -> None:
    def act() -> None:
        try:
            raise NotFound("no such thing", code="model_not_found")
        except NotFound:
            log.exception("failed")

    entry = json_line(act)
    assert entry["code"] == "model_not_found"
    assert "Traceback" in entry["exception"]


def test_what_a_client_sent_cannot_forge_a_line() -> None:
    text = lines("text", lambda: log.info("path %s", "/a\r\n2026-01-01 ERROR forged\x1b[2J\u2028x"))
    assert len(text) == 1
    assert "\x1b" not in text[0]
    assert r"\r\n2026" in text[0]
    assert len(lines("json", lambda: log.info("a\nb\u2028c"))) == 1


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize(
    "message",
    [
        "Authorization: Bearer SECRETSECRETSECRET",
        "{'authorization': 'Bearer SECRETSECRETSECRET'}",
        "[(b'authorization', ...)] bearer SECRETSECRETSECRET",
        "x-api-key=SECRETSECRETSECRET",
        "key sk-SECRETSECRETSECRETSECRET rejected",
        "cannot connect to postgresql://indigo:SECRETSECRETSECRET@db/indigo",
    ],
)
def test_secrets_do_not_reach_the_log(format: str, message: str) -> None:
    (line,) = lines(format, lambda: log.warning(message))
    assert "SECRET" not in line
    assert "[redacted]" in line


@pytest.mark.parametrize("kind", list(api_keys.KINDS))
def test_a_key_of_ours_is_redacted_in_messages_and_in_tracebacks(kind: str) -> None:
    key = api_keys.mint(kind)

    def act() -> None:
        try:
            raise ValueError(f"bad key {key}")
        except ValueError:
            log.exception("could not use %s", key)

    assert key not in "\n".join(lines("text", act))
    assert key not in "\n".join(lines("json", act))


def test_ordinary_words_are_not_redacted() -> None:
    text = "the bearer of this, ask-anything and task-manager-service-account-list stay"
    assert logs.redacted(text) == text


@pytest.mark.threat("T90")
@pytest.mark.parametrize("text", ["sk-" * 30_000, "bearer " * 15_000, "://a:" * 20_000, "authorization:" * 8_000])
def test_redacting_hostile_text_takes_no_longer_than_its_length(text: str) -> None:
    began = time.process_time()
    logs.redacted(text)
    assert time.process_time() - began < 1.0


def test_a_line_that_cannot_be_formatted_does_not_stop_the_program() -> None:
    (line,) = lines("text", lambda: log.info("%d", "no number"))
    assert line.startswith("a log line could not be formatted: indigo.test")


class BlockedSink(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def write(self, text: str) -> int:
        self.opened.wait(30)
        return super().write(text)


def test_a_sink_that_blocks_costs_lines_and_never_time() -> None:
    sink = BlockedSink()
    running = logs.start("info", "text", sink, queue_size=10)
    try:
        began = time.monotonic()
        for number in range(1_000):
            log.info("line %d", number)
        assert time.monotonic() - began < 5
        assert 980 <= running.dropped <= 990
    finally:
        sink.opened.set()
        running.stop()
    assert "line 0" in sink.getvalue()


def test_levels_below_the_chosen_one_are_left_out() -> None:
    assert lines("text", lambda: log.debug("detail")) == []


@pytest.mark.promise("P100")
@pytest.mark.parametrize(("level", "format"), [("loud", "text"), ("info", "xml")])
def test_an_unknown_level_or_format_names_the_variable(level: str, format: str) -> None:
    with pytest.raises(InvalidRequest, match="LOG_"):
        logs.start(level, format)
