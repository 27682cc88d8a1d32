"""What a client is told when an endpoint would not answer: errors of ours, with nothing secret in them."""

from __future__ import annotations

import re

import msgspec

from indigo.gateway.ports import ModelEntry, Target
from indigo.gateway.upstream.call import AttemptFailed, Call
from indigo.kernel.errors import IndigoError, RateLimited, Unavailable, UpstreamFailed, UpstreamTimeout

_KEY_LIKE = re.compile(r"\b(?:sk|hf|gsk|xai|AIza)[-_A-Za-z0-9]{16,}")


def refusal(entry: ModelEntry, failed: AttemptFailed | None, now: float) -> IndigoError:
    """No target of `entry` answered; `failed` is the last attempt, None where there was none to make."""
    wait = int(min((target.endpoint.retry_in(now) for target in entry.targets), default=5.0)) + 1
    if failed is None:
        return Unavailable(
            f"No endpoint of the model {entry.id!r} is healthy at the moment; try again in {wait} s.",
            code="no_healthy_endpoint",
            retry_after=wait,
        )
    text = f"The model {entry.id!r} could not answer: {failed.text.rstrip('.')}."
    if failed.timeout:
        return UpstreamTimeout(text)
    if failed.status == 429:
        pause = int(failed.retry_after or 0) or wait
        return RateLimited(text, code="upstream_rate_limited", retry_after=pause)
    if failed.status == 0 or failed.status >= 500:
        return Unavailable(text, code="upstream_unavailable", retry_after=wait)
    return UpstreamFailed(text)


def reason(status: int) -> str:
    """Why an endpoint's answer of that status is not passed on."""
    if status in (401, 402, 403, 407):
        return "its provider refuses the credential or account that this server is configured with"
    if status == 429:
        return "its provider is rate limiting this server"
    if 300 <= status < 400:
        return "its provider answered with a redirect, which is not followed"
    return f"its endpoint answered with status {status}"


class _ErrorDetail(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail | str | None = None
    message: str | None = None
    detail: str | None = None


TOO_LONG = b"too large to process"


def blames_the_client(call: Call) -> bool:
    """Whether a 500 is a 400 in truth: llama.cpp answers an embedding input beyond its batch so."""
    return call.status == 500 and TOO_LONG in call.whole[:4096]


def passed_on(call: Call, target: Target) -> IndigoError:
    """An endpoint's 4xx as an error of ours: its message, code and param, without anything secret."""
    detail = _ErrorDetail()
    try:
        body = msgspec.json.decode(call.whole, type=_ErrorBody)
        if isinstance(body.error, _ErrorDetail):
            detail = body.error
        else:
            detail.message = body.error or body.message or body.detail or ""
    except (msgspec.DecodeError, RecursionError):
        pass
    message = scrubbed(detail.message[:65_536], target)[:4096]
    message = message or f"The model refused the request with status {call.status}."
    code = scrubbed(detail.code, target)[:128] if isinstance(detail.code, str) else None
    param = scrubbed(detail.param, target)[:128] if detail.param else None
    if detail.type == "exceed_context_size_error" or TOO_LONG.decode() in detail.message:
        code = "context_length_exceeded"
    error = IndigoError(message, code=code or "upstream_rejected", param=param)
    error.status = call.status
    error.type = "invalid_request_error"
    return error


def scrubbed(text: str, target: Target) -> str:
    """Without the headers that are configured for the endpoint, nor its address."""
    address = target.endpoint.address
    secrets = [part for _, value in target.endpoint.headers for part in value.split() if len(part) > 6]
    for secret in (*secrets, address.authority, address.unix or ""):
        if secret:
            text = text.replace(secret, "[redacted]")
    return _KEY_LIKE.sub("[redacted]", text)
