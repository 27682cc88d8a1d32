"""Finds what an answer used: in a whole JSON answer, or in one event of a stream. Hostile numbers are not believed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from indigo.gateway.ports import Price, Tokens
from indigo.kernel import money

Amount = Annotated[int, Meta(ge=0, le=100_000_000)]


class PromptDetails(msgspec.Struct):
    cached_tokens: Amount | None = 0


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: Amount | None = 0


class Usage(msgspec.Struct):
    prompt_tokens: Amount = 0
    completion_tokens: Amount | None = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def tokens(self) -> Tokens:
        prompt = self.prompt_tokens
        completion = self.completion_tokens or 0
        cached = (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0
        details = self.completion_tokens_details
        reasoning = (details.reasoning_tokens or 0) if details else 0
        return Tokens(prompt, completion, min(cached, prompt), min(reasoning, completion))


class Answer(msgspec.Struct):
    usage: Usage | None = None
    error: Raw | UnsetType = UNSET


class Skeleton(msgspec.Struct):
    """An answer whose usage cannot be read: only whether it is an object, and whether it is an error."""

    error: Raw | UnsetType = UNSET


class Choice(msgspec.Struct):
    finish_reason: str | None = None


class Event(msgspec.Struct):
    usage: Usage | None = None
    choices: list[Choice] | None = None
    error: Raw | UnsetType = UNSET


class BareEvent(msgspec.Struct):
    """An event whose usage cannot be believed."""

    choices: list[Choice] | None = None
    error: Raw | UnsetType = UNSET


_answer = msgspec.json.Decoder(Answer).decode
_skeleton = msgspec.json.Decoder(Skeleton).decode
_bare_event = msgspec.json.Decoder(BareEvent).decode
decode_event = msgspec.json.Decoder(Event).decode
"""One event's data. Raises msgspec.DecodeError for what is no such object, or states impossible usage."""


def of_answer(body: bytes) -> Tokens | None:
    """The usage a whole answer states; None where it states none that can be believed.

    Raises ValueError where the body is no JSON object, or an error in a success's clothes.
    """
    try:
        answer = _answer(body)
        usage = answer.usage
        error = answer.error
    except msgspec.ValidationError:
        usage = None
        error = _skeleton(body).error
    if error is not UNSET and bytes(error) != b"null":
        raise ValueError("an error in a success's clothes")
    return usage.tokens() if usage is not None else None


def of_event(data: bytes) -> Event | None:
    """One event's data without its usage, which could not be read; None where it is no such object at all."""
    try:
        bare = _bare_event(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return Event(choices=bare.choices, error=bare.error)


def price_of(tokens: Tokens, price: Price) -> int:
    """Micro-dollars for `tokens`; cached prompt tokens have their own price."""
    fresh = tokens.prompt - tokens.cached
    parts = (
        money.cost(fresh, price.input)
        + money.cost(tokens.cached, price.cached_input)
        + money.cost(tokens.completion, price.output)
    )
    return money.rounded(parts) + price.request
