"""The bodies of the mock's answers, in OpenAI's shapes."""

from __future__ import annotations

from typing import Any, cast

import msgspec

CREATED = 1_750_000_000
DONE = b"data: [DONE]\n\n"


class Ask(msgspec.Struct):
    """What the mock reads of a request."""

    model: str = "mock"
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    messages: list[dict[str, Any]] = []
    prompt: Any = None
    input: Any = None
    documents: list[Any] = []
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.get("include_usage"))

    @property
    def text(self) -> str:
        """The last thing said; echoed, so that a test knows its own answer by it."""
        if self.messages:
            content = self.messages[-1].get("content")
            return content if isinstance(content, str) else msgspec.json.encode(content).decode()
        return self.prompt if isinstance(self.prompt, str) else msgspec.json.encode(self.prompt).decode()


def words(ask: Ask, chunks: int) -> list[str]:
    """The answer in pieces: the echo, then filler."""
    limit = ask.max_completion_tokens or ask.max_tokens or chunks
    return [ask.text, *(f" word{number}" for number in range(1, min(chunks, limit)))]


def usage(ask: Ask, count: int) -> dict[str, Any]:
    prompt = len(ask.text) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}


def whole(ask: Ask, pieces: list[str], with_usage: bool, chat: bool) -> bytes:
    """A completion that is not streamed."""
    text = "".join(pieces)
    said = {"message": {"role": "assistant", "content": text, "refusal": None}} if chat else {"text": text}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop"}
    body = {**_frame(ask, "chat.completion" if chat else "text_completion"), "choices": [choice]}
    if with_usage:
        body["usage"] = usage(ask, len(pieces))
    return msgspec.json.encode(body)


def events(ask: Ask, pieces: list[str], with_usage: bool, chat: bool) -> list[bytes]:
    """The events of a streamed completion, without its [DONE]."""
    frame = _frame(ask, "chat.completion.chunk" if chat else "text_completion")
    made: list[bytes] = []
    if chat:
        made.append(event(frame | {"choices": [_chunk({"role": "assistant", "content": ""}, chat)]}))
    made += [event(frame | {"choices": [_chunk({"content": piece}, chat)]}) for piece in pieces]
    made.append(event(frame | {"choices": [_chunk({}, chat, "stop")]}))
    if with_usage:
        made.append(event(frame | {"choices": [], "usage": usage(ask, len(pieces))}))
    return made


def event(body: Any) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def embeddings(ask: Ask) -> bytes:
    given: Any = ask.input
    inputs = cast(list[Any], given) if isinstance(given, list) else [given]
    data = [
        {"object": "embedding", "index": place, "embedding": [len(str(text)) / 1000, 0.5, -0.5]}
        for place, text in enumerate(inputs)
    ]
    count = sum(len(str(text)) // 4 + 1 for text in inputs)
    counted = {"prompt_tokens": count, "total_tokens": count}
    return msgspec.json.encode({"object": "list", "data": data, "model": ask.model, "usage": counted})


def rerank(ask: Ask) -> bytes:
    results = [
        {"index": place, "relevance_score": 1 / (place + 1), "document": {"text": document}}
        for place, document in enumerate(ask.documents)
    ]
    counted = {"prompt_tokens": len(results), "total_tokens": len(results)}
    return msgspec.json.encode({"id": "rerank-mock", "model": ask.model, "results": results, "usage": counted})


def models(names: list[str]) -> bytes:
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "mock"} for name in names]
    return msgspec.json.encode({"object": "list", "data": data})


def error(status: int, message: str) -> bytes:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": str(status)}})


def _frame(ask: Ask, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-mock", "object": kind, "created": CREATED, "model": ask.model}


def _chunk(delta: dict[str, str], chat: bool, finish: str | None = None) -> dict[str, Any]:
    said = {"delta": delta} if chat else {"text": delta.get("content", "")}
    return {"index": 0, **said, "logprobs": None, "finish_reason": finish}
