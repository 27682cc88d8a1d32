"""The official Python SDK against the running product, its embedded engine and the demonstration models."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import openai
import pytest

from indigo.engines.demo import sentences
from tests.support.openapi import Recorder
from tests.support.product import CHAT, EMBEDDING, Product

HELLO: Any = [{"role": "user", "content": "Hello!"}]


def tool(name: str) -> Any:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    }
    return {"type": "function", "function": {"name": name, "description": f"It is {name}.", "parameters": parameters}}


TOOLS: Any = [tool("get_weather"), tool("get_news")]
PERSON: Any = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 3}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture
def client(product: Product, recorder: Recorder) -> openai.OpenAI:
    return product.client(recorder)


@pytest.mark.promise("P03")
def test_the_models_are_listed_and_each_can_be_retrieved(client: openai.OpenAI, recorder: Recorder) -> None:
    ids = {model.id for model in client.models.list()}
    assert ids == {CHAT, EMBEDDING}
    for id in ids:
        assert client.models.retrieve(id).id == id
    recorder.check(answers=3)


@pytest.mark.promise("P01")
def test_a_chat_is_answered(client: openai.OpenAI, recorder: Recorder) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=HELLO)
    assert answer.choices[0].message.content == sentences.ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 30
    recorder.check(answers=1)


@pytest.mark.promise("P01", "P04")
def test_a_chat_is_streamed_word_by_word(client: openai.OpenAI, recorder: Recorder) -> None:
    chunks = list(client.chat.completions.create(model=CHAT, messages=HELLO, stream=True))
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == sentences.ANSWER
    assert len([word for word in said if word]) > 30
    assert all(chunk.choices for chunk in chunks), "usage was not asked for, so no chunk is for usage alone"
    assert all(chunk.usage is None for chunk in chunks)
    recorder.check(events=30)
    assert recorder.complete_streams == 1


@pytest.mark.promise("P01", "P04")
def test_a_stream_ends_with_its_usage_if_asked(client: openai.OpenAI, recorder: Recorder) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=CHAT, messages=HELLO, stream=True, stream_options=options))
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 30
    assert all(chunk.usage is None for chunk in chunks[:-1])
    recorder.check(events=30)


@pytest.mark.promise("P04")
def test_the_query_may_ask_for_the_stream(client: openai.OpenAI, recorder: Recorder) -> None:
    chat = client.chat.completions.with_streaming_response
    with chat.create(model=CHAT, messages=HELLO, extra_query={"stream": "true"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert b"".join(answer.iter_bytes()).endswith(b"data: [DONE]\n\n")
    recorder.check(events=30)


@pytest.mark.promise("P01")
def test_the_model_calls_a_tool_and_answers_with_its_result(client: openai.OpenAI, recorder: Recorder) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, tools=TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    assert message.tool_calls
    [call] = message.tool_calls
    assert call.type == "function"
    jsonschema.validate(json.loads(call.function.arguments), TOOLS[0]["function"]["parameters"])
    told = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    turns: Any = [*HELLO, message.model_dump(exclude_none=True), told]
    second = client.chat.completions.create(model=CHAT, messages=turns, tools=TOOLS)
    assert second.choices[0].message.content == sentences.AFTER_TOOL
    recorder.check(answers=2)


@pytest.mark.promise("P01", "P04")
def test_a_tool_call_can_be_put_together_from_a_stream(client: openai.OpenAI, recorder: Recorder) -> None:
    name, arguments, reasons = "", "", set[str]()
    for chunk in client.chat.completions.create(model=CHAT, messages=HELLO, tools=TOOLS, stream=True):
        reasons |= {choice.finish_reason for choice in chunk.choices if choice.finish_reason}
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name in ("get_weather", "get_news")
    assert set(json.loads(arguments)) == {"city", "days"}
    assert reasons == {"tool_calls"}
    recorder.check(events=5)


@pytest.mark.promise("P01")
@pytest.mark.parametrize("name", ["get_weather", "get_news"])
def test_the_tool_that_is_named_is_the_one_called(client: openai.OpenAI, recorder: Recorder, name: str) -> None:
    choice: Any = {"type": "function", "function": {"name": name}}
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, tools=TOOLS, tool_choice=choice)
    assert answer.choices[0].message.tool_calls
    called = [call.function.name for call in answer.choices[0].message.tool_calls if call.type == "function"]
    assert called == [name]
    recorder.check(answers=1)


@pytest.mark.promise("P01")
def test_an_answer_obeys_a_json_schema(client: openai.OpenAI, recorder: Recorder) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, response_format=form)
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), PERSON)
    recorder.check(answers=1)


@pytest.mark.promise("P01")
def test_log_probabilities_come_along_if_asked(client: openai.OpenAI, recorder: Recorder) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, logprobs=True, top_logprobs=3, max_tokens=4)
    probabilities = answer.choices[0].logprobs
    assert probabilities is not None
    assert probabilities.content is not None
    assert len(probabilities.content) == 4
    assert all(len(token.top_logprobs) == 3 for token in probabilities.content)
    recorder.check(answers=1)


@pytest.mark.promise("P01")
def test_several_choices_can_be_asked_for(client: openai.OpenAI, recorder: Recorder) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, n=3)
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {sentences.ANSWER}
    recorder.check(answers=1)


@pytest.mark.promise("P02")
def test_a_text_is_continued_whole_and_in_a_stream(client: openai.OpenAI, recorder: Recorder) -> None:
    whole = client.completions.create(model=CHAT, prompt="Once upon a")
    assert whole.choices[0].text == sentences.CONTINUATION
    streamed = client.completions.create(model=CHAT, prompt="Once upon a", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == sentences.CONTINUATION
    recorder.check(answers=1, events=5)


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.promise("P02")
def test_embeddings_are_the_same_in_base64_and_as_numbers(client: openai.OpenAI, recorder: Recorder) -> None:
    texts = ["The weather is sunny", "What is the weather like?", "My dog eats food"]
    packed = client.embeddings.create(model=EMBEDDING, input=texts)
    plain = client.embeddings.create(model=EMBEDDING, input=texts, encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    sunny, weather, dog = (item.embedding for item in plain.data)
    assert dot(sunny, weather) > dot(sunny, dog)
    assert plain.usage.prompt_tokens > 0
    recorder.check(answers=2)


@pytest.mark.promise("P05")
def test_errors_are_the_exceptions_that_the_sdk_has_for_them(client: openai.OpenAI, recorder: Recorder) -> None:
    chat = client.chat.completions.create
    wrong = client.with_options(api_key="sk-proj-nobody")
    with pytest.raises(openai.AuthenticationError) as unauthorized:
        wrong.models.list()
    assert unauthorized.value.body["request_id"] == unauthorized.value.request_id  # type: ignore[index, call-overload]
    with pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model=CHAT, messages=HELLO)
    with pytest.raises(openai.NotFoundError, match="no-such-model") as unknown:
        chat(model="no-such-model", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.models.retrieve("no-such-model")
    with pytest.raises(openai.NotFoundError):
        client.post("/no/such/route", cast_to=object, body={})
    recorder.check(answers=5)


@pytest.mark.promise("P05")
def test_a_request_that_is_wrong_is_a_bad_request(client: openai.OpenAI, recorder: Recorder) -> None:
    wrong: list[dict[str, Any]] = [
        {"model": 7, "messages": HELLO},
        {"messages": HELLO},
        {"model": CHAT, "messages": "Hello"},
        {"model": CHAT, "messages": HELLO, "max_tokens": "many"},
        {"model": CHAT, "messages": HELLO, "stream": "yes"},
        {"model": CHAT, "messages": [{"role": "user", "content": "xq " * 9000}]},
    ]
    for body in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            client.post("/chat/completions", cast_to=object, body=body)
        assert refused.value.request_id, body
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=EMBEDDING, messages=HELLO)
    recorder.check(answers=len(wrong) + 1)


@pytest.mark.promise("P05")
def test_every_answer_has_the_id_of_its_request(client: openai.OpenAI, recorder: Recorder) -> None:
    own = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=HELLO, extra_headers={"X-Request-Id": "my-request-1"}
    )
    assert own.headers["x-request-id"] == own.request_id == "my-request-1"
    first, second = (client.models.with_raw_response.list().headers["x-request-id"] for _ in range(2))
    assert first != second
    recorder.check(answers=3)


@pytest.mark.promise("P01", "P04")
async def test_fifty_streams_at_once_are_each_whole(product: Product, recorder: Recorder) -> None:
    async with product.async_client(recorder) as client:

        async def one() -> str:
            stream = await client.chat.completions.create(model=CHAT, messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        answers = await asyncio.gather(*(one() for _ in range(50)))
    assert set(answers) == {sentences.ANSWER}
    recorder.check(events=50 * 30)
    assert recorder.complete_streams == 50
