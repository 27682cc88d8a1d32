"""The recorder that the other tests here lean on: it must see what is wrong."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support import openapi
from tests.support.openapi import Recorder

CHAT = "/v1/chat/completions"
CHUNK: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1_750_000_000,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}],
}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
WHOLE: dict[str, Any] = {
    **CHUNK,
    "object": "chat.completion",
    "usage": USAGE,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}
FINISH = {"type": "string"}
COMPLETION: dict[str, Any] = {"properties": {"choices": {"items": {"properties": {"finish_reason": FINISH}}}}}
ERROR = {"type": "auth_error", "code": None, "message": "No.", "param": None, "request_id": "req_1"}


def sent(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def test_right_answers_are_no_problem() -> None:
    recorder = Recorder()
    recorder.answer(CHAT, 200, json.dumps(WHOLE).encode())
    recorder.answer(CHAT, 401, json.dumps({"error": ERROR}).encode())
    vector = base64.b64encode(struct.pack("<2f", 0.5, -0.5)).decode()
    item = {"object": "embedding", "index": 0, "embedding": vector}
    embeddings = {"object": "list", "data": [item], "model": "m", "usage": USAGE}
    recorder.answer("/v1/embeddings", 200, json.dumps(embeddings).encode())
    stream = recorder.stream(CHAT)
    for byte in sent(CHUNK, {**CHUNK, "choices": [], "usage": USAGE}) + b"data: [DONE]\n\n":
        stream.feed(bytes([byte]))
    recorder.check(answers=3, events=2)
    assert recorder.complete_streams == 1


@pytest.mark.parametrize(
    "change",
    [
        {"object": "chat.completion.chunk"},
        {"created": "today"},
        {"choices": []},
        {"choices": [{**WHOLE["choices"][0], "finish_reason": "tired"}]},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 1, "total_tokens": 0}},
    ],
)
def test_a_wrong_answer_is_a_problem(change: dict[str, Any]) -> None:
    recorder = Recorder()
    recorder.answer(CHAT, 200, json.dumps({**WHOLE, **change}).encode())
    with pytest.raises(AssertionError, match="schema"):
        recorder.check()


@pytest.mark.parametrize(
    "stream",
    [
        sent({**CHUNK, "model": None}),
        sent({**CHUNK, "choices": [{"index": 0}]}),
        sent({"error": {"message": "no more"}}),
        sent(CHUNK).replace(b"\n\n", b"\n") + sent(CHUNK)[:5] + b"\n\n",
        b"data: {\n\n",
        b"event: x\n\n",
        b"data: [DONE]\n\n" + sent(CHUNK),
    ],
)
def test_a_wrong_stream_is_a_problem(stream: bytes) -> None:
    recorder = Recorder()
    check = recorder.stream(CHAT)
    check.feed(stream)
    check.end()
    with pytest.raises(AssertionError):
        recorder.check()


def test_having_seen_nothing_is_a_problem() -> None:
    with pytest.raises(AssertionError, match="saw 0 answers"):
        Recorder().check(answers=1)


def test_openais_own_description_is_applied_where_it_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {
        "type": "object",
        "required": ["id", "tier", "note"],
        "properties": {"tier": {"enum": ["fast"]}, "note": {"type": "string", "nullable": True}},
    }
    schemas = {"CreateChatCompletionResponse": parts, "CreateCompletionResponse": COMPLETION}
    file = tmp_path / "openai.json"
    file.write_text(json.dumps({"components": {"schemas": schemas}}))
    monkeypatch.setenv("INDIGO_OPENAPI_SUBSET", str(file))
    openapi.forget()
    try:
        for tier, problems in (("fast", 0), ("slow", 1)):
            recorder = Recorder()
            recorder.answer(CHAT, 200, json.dumps({**WHOLE, "tier": tier}).encode())
            assert len(recorder.problems) == problems, recorder.problems
    finally:
        openapi.forget()
