"""Reads a request's body once: checks what is ours to check, decodes a dozen fields, and keeps the bytes.

Unknown fields pass untouched. The body is only written anew (`rewritten`) where the model goes by another name
at the endpoint, where usage must be asked for, or where an engine needs help with `tool_choice`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw

from indigo.gateway import checks, operations
from indigo.gateway.ports import Estimate
from indigo.kernel.errors import InvalidRequest

BYTES_PER_TOKEN = 4
"""A cautious rule of thumb for estimates; real counts come from the engine."""

Count = Annotated[int, Meta(ge=1, le=2**31)]
Number = Annotated[float, Meta(ge=-1e6, le=1e6)]


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ToolName(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    """A tool, or a `tool_choice` that names one."""

    function: ToolName


class Ask(msgspec.Struct):
    """The fields of a request that the gateway looks at; wrong types are refused here."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    seed: int | None = None
    tool_choice: Raw = Raw()
    messages: Raw = Raw()
    prompt: Raw = Raw()
    input: Raw = Raw()
    query: Raw = Raw()
    documents: Raw = Raw()

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True

    def estimate(self, size: int) -> Estimate:
        """The most that this request may use; `size` is its body's length in bytes."""
        output = self.max_completion_tokens or self.max_tokens
        return Estimate(input=size // BYTES_PER_TOKEN + 1, output=None if output is None else output * (self.n or 1))


REQUIRED = {
    operations.CHAT: ("messages",),
    operations.COMPLETIONS: ("prompt",),
    operations.EMBEDDINGS: ("input",),
    operations.RERANK: ("query", "documents"),
}
_decode = msgspec.json.Decoder(Ask).decode
_decode_raw = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode
DECIDING = ("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tool_choice")
"""Fields that the gateway acts on: read differently here and at the model, they would be a way around it."""
_NAMES = tuple(f'"{name}"'.encode() for name in DECIDING)
_ESCAPED_NAME = re.compile(rb"\\u00[67][0-9a-fA-F]|\\u005[fF]")
"""A letter or underscore spelled as an escape, which no encoder has a reason to do."""


def read(body: bytes, operation: str) -> Ask:
    """The request in `body`. Raises InvalidRequest that names what is wrong.

    A body over `checks.LARGE` bytes is to be given to `checks.large` before.
    """
    size = len(body)
    if size <= checks.LARGE:
        checks.small(body)
    try:
        ask = _decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_field(error) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if size > checks.LARGE or _suspicious(body):
        checks.check_duplicates(body)
    for name in REQUIRED[operation]:
        _check_present(name, getattr(ask, name))
    return ask


def _suspicious(body: bytes) -> bool:
    """Whether a field that the gateway acts on might be there twice, under whatever spelling."""
    for name in _NAMES:
        if body.count(name) > 1:
            return True
    return b"\\u00" in body and _ESCAPED_NAME.search(body) is not None


def rewritten(body: bytes, changes: dict[str, Any]) -> bytes:
    """`body` with top-level fields replaced, or left out where UNSET; the other fields' bytes stay as they came."""
    fields: dict[str, Any] = dict(_decode_raw(body))
    fields.update(changes)
    return _encode({name: value for name, value in fields.items() if value is not UNSET})


def usage_option(body: bytes) -> dict[str, Any]:
    """The client's own `stream_options` with usage asked for."""
    given = _decode_raw(body).get("stream_options")
    options: Any = msgspec.json.decode(given) if given is not None else None
    return {**(options or {}), "include_usage": True}


def single_tool(body: bytes, ask: Ask) -> dict[str, Any]:
    """For engines that ignore a `tool_choice` naming a function: only that tool, and `required`. They show the
    model its tools even for `none`, which then talks of calls: no tools at all.

    Raises InvalidRequest where no such tool was sent.
    """
    if bytes(ask.tool_choice) == b'"none"':
        return {"tools": UNSET, "tool_choice": UNSET}
    if not bytes(ask.tool_choice).startswith(b"{"):
        return {}
    try:
        name = msgspec.json.decode(ask.tool_choice, type=NamedTool).function.name
        tools = msgspec.json.decode(_decode_raw(body).get("tools", Raw(b"[]")), type=list[Raw])
        chosen = [tool for tool in tools if msgspec.json.decode(tool, type=NamedTool).function.name == name]
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"tool_choice and tools do not fit together: {error}", param="tool_choice") from None
    if not chosen:
        raise InvalidRequest(f"tool_choice names the function {name!r}, which is not in tools.", param="tool_choice")
    return {"tools": chosen[:1], "tool_choice": "required"}


def _check_present(name: str, value: Raw) -> None:
    text = bytes(value)
    if not text or text == b"null":
        raise InvalidRequest(f"The field {name!r} is missing.", code="missing_field", param=name)
    if name in ("messages", "documents") and (text[:1] != b"[" or not text[1:-1].strip()):
        raise InvalidRequest(f"The field {name!r} must be a list with at least one entry.", param=name)
    if name in ("prompt", "input", "query") and text[:1] not in b'"[{':
        raise InvalidRequest(f"The field {name!r} must be a string or a list.", param=name)


def _wrong_field(error: msgspec.ValidationError) -> InvalidRequest:
    """`Expected `int`, got `str` - at `$.max_tokens`` says it all, but for the dollar."""
    text = str(error)
    found = re.search(r" - at `\$\.([\w.]+)`", text)
    if found:
        return InvalidRequest(f"{found[1]}: {text[: found.start()]}.", code="invalid_type", param=found[1])
    if missing := re.search(r"missing required field `(\w+)`", text):
        return InvalidRequest(f"The field {missing[1]!r} is missing.", code="missing_field", param=missing[1])
    return InvalidRequest(f"The body must be a JSON object: {text}.", code="invalid_type")
