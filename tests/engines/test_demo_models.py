"""The demonstration models, run by the real engine."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import jsonschema
import pytest

from indigo.engines.demo import model, sentences
from indigo.engines.llama.child import parameters
from indigo.engines.llama.config import ChildConfig, Kind
from indigo.engines.llama.model_file import read
from indigo.engines.llama.native import native
from tests.engines.llama_client import exchange

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
USER = {"role": "user", "content": "What is the weather like?"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 10},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "colour": {"enum": ["red", "green"]},
        "ok": {"type": "boolean"},
        "born": {"type": "string", "format": "date"},
        "spouse": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags", "colour", "ok", "born"],
    "additionalProperties": False,
    "$defs": {
        "person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


def _serve(kind: Kind) -> Iterator[str]:
    """The engine in this process: what is tested is the model; `test_llama.py` has the child process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        (model.write_chat if kind == "chat" else model.write_embedding)(path)
        socket = f"{folder}/s.sock"
        alias = model.CHAT_ID if kind == "chat" else model.EMBEDDING_ID
        config = ChildConfig(str(path), socket, alias, kind, os.getpid(), demo=True, threads=1)
        server = native.Server(parameters(config, read(path)))
        yield f"unix:{socket}"
        del server


@pytest.fixture(scope="module")
def chat() -> Iterator[str]:
    yield from _serve("chat")


@pytest.fixture(scope="module")
def embedding() -> Iterator[str]:
    yield from _serve("embedding")


def ask(base_url: str, path: str, **body: Any) -> Any:
    status, text = exchange(base_url, path, body)
    assert status == 200, text
    return json.loads(text)


def complete(base_url: str, **body: Any) -> Any:
    return ask(base_url, "/v1/chat/completions", **{"messages": [USER], **body})["choices"][0]


def test_the_files_are_small_and_the_same_every_time(tmp_path: Path) -> None:
    for write in (model.write_chat, model.write_embedding):
        write(tmp_path / "one")
        write(tmp_path / "two")
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        assert (tmp_path / "one").stat().st_size < 1_000_000
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_the_files_are_labelled_as_demonstrations(tmp_path: Path) -> None:
    model.write_chat(tmp_path / "chat")
    fields = gguf.GGUFReader(tmp_path / "chat").fields
    assert fields["general.name"].contents() == "indigo-demo"
    assert "demonstration" in fields["general.description"].contents()
    assert "demonstration" in sentences.ANSWER


@pytest.mark.parametrize("temperature", [None, 0, 1])
def test_it_says_its_sentence_and_stops(chat: str, temperature: int | None) -> None:
    body = {} if temperature is None else {"temperature": temperature}
    choice = complete(chat, **body)
    assert choice["message"]["content"] == sentences.ANSWER
    assert choice["finish_reason"] == "stop"


def test_it_streams_the_sentence_word_by_word(chat: str) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    status, text = exchange(chat, "/v1/chat/completions", {"messages": [USER], **options})
    assert status == 200
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    said = [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]
    assert "".join(said) == sentences.ANSWER
    assert len([word for word in said if word]) > 30
    assert events[-1]["usage"]["completion_tokens"] > 30
    assert text.endswith("data: [DONE]\n\n")


def test_it_ends_a_raw_text(chat: str) -> None:
    choice = ask(chat, "/v1/completions", prompt="Once upon a")["choices"][0]
    assert choice["text"] == sentences.CONTINUATION


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_it_calls_a_tool_with_arguments_of_the_right_types(chat: str, choice: str, temperature: int) -> None:
    answer = complete(chat, tools=[WEATHER], tool_choice=choice, temperature=temperature)
    assert answer["finish_reason"] == "tool_calls"
    [call] = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER["function"]["parameters"])


def test_it_answers_once_a_tool_has(chat: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    choice = complete(chat, messages=messages, tools=[WEATHER])
    assert choice["message"]["content"] == sentences.AFTER_TOOL


@pytest.mark.parametrize("temperature", [0, 1])
def test_it_obeys_a_json_schema(chat: str, temperature: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    choice = complete(chat, response_format=form, temperature=temperature, max_tokens=500)
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_it_writes_a_json_object(chat: str) -> None:
    choice = complete(chat, response_format={"type": "json_object"}, max_tokens=100)
    assert json.loads(choice["message"]["content"]) == {"demo": "demo"}


def test_log_probabilities_are_finite(chat: str) -> None:
    choice = complete(chat, logprobs=True, top_logprobs=5, max_tokens=3)
    tokens = choice["logprobs"]["content"]
    assert len(tokens) == 3
    shown = [token["logprob"] for token in tokens] + [one["logprob"] for t in tokens for one in t["top_logprobs"]]
    assert all(-200 < value <= 0 for value in shown), shown


def test_several_choices_can_be_asked_for(chat: str) -> None:
    answer = ask(chat, "/v1/chat/completions", messages=[USER], n=3)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [sentences.ANSWER] * 3


@pytest.mark.parametrize("text", ["日本語 ✓ 👩‍👩‍👧", "\x00\x01\u2028", "İstanbul", "  \t\r\n "])
def test_any_input_has_tokens(chat: str, text: str) -> None:
    assert complete(chat, messages=[{"role": "user", "content": text}])["finish_reason"] == "stop"


def test_a_prompt_longer_than_the_context_is_refused(chat: str) -> None:
    messages = [{"role": "user", "content": "xq " * 9000}]
    status, text = exchange(chat, "/v1/chat/completions", {"messages": messages})
    assert status == 400
    assert json.loads(text)["error"]["type"] == "exceed_context_size_error"


def test_similar_texts_have_similar_embeddings(embedding: str) -> None:
    texts = [
        "The weather in Paris is sunny today",
        "What is the weather like in Paris?",
        "My dog eats food",
        "The cat and the dog like food",
    ]
    data = ask(embedding, "/v1/embeddings", input=texts)["data"]
    paris, weather, dog, pets = (item["embedding"] for item in data)
    assert min(_cosine(paris, weather), _cosine(dog, pets)) > 0.3
    others = [_cosine(a, b) for a in (paris, weather) for b in (dog, pets)]
    assert max(others) < min(_cosine(paris, weather), _cosine(dog, pets))


def test_a_text_has_one_embedding_alone_and_among_others(embedding: str) -> None:
    texts = [
        "weather",
        "The quick brown fox jumps over the lazy dog",
        "a b c",
        "My dog eats food in the garden",
    ]
    together = ask(embedding, "/v1/embeddings", input=texts)["data"]
    for text, item in zip(texts, together, strict=True):
        [alone] = ask(embedding, "/v1/embeddings", input=text)["data"]
        assert _cosine(alone["embedding"], item["embedding"]) > 0.999


def test_an_embedding_input_longer_than_the_context_is_refused(embedding: str) -> None:
    status, text = exchange(embedding, "/v1/embeddings", {"input": "xq " * 9000})
    # 500 is the engine's choice; for a chat it says 400.
    assert status == 500
    assert "too large to process" in text


def _cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.hypot(*one) / math.hypot(*other)
