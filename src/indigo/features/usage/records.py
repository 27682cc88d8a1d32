"""How usage is written in the journal: a byte that says what follows, then a gateway record as MessagePack.

The records are arrays: a field may only ever be added at the end and with a default, so that a journal which
an older version left can be read.
"""

from __future__ import annotations

import msgspec

from indigo.gateway.ports import Admission, Progress, UsageEvent
from indigo.kernel.money import cost, rounded

OPENED = b"\x01"
PROGRESSED = b"\x02"
CLOSED = b"\x03"

_encode = msgspec.msgpack.Encoder().encode
_admission = msgspec.msgpack.Decoder(Admission)
_progress = msgspec.msgpack.Decoder(Progress)
_event = msgspec.msgpack.Decoder(UsageEvent)


def opened(admission: Admission) -> bytes:
    return OPENED + _encode(admission)


def progressed(progress: Progress) -> bytes:
    return PROGRESSED + _encode(progress)


def closed(event: UsageEvent) -> bytes:
    return CLOSED + _encode(event)


def decode(payload: bytes) -> Admission | Progress | UsageEvent:
    """The record; raises msgspec.DecodeError (a ValueError) for anything else."""
    tag = payload[:1]
    if tag == CLOSED:
        return _event.decode(payload[1:])
    if tag == OPENED:
        return _admission.decode(payload[1:])
    if tag == PROGRESSED:
        return _progress.decode(payload[1:])
    raise msgspec.DecodeError(f"a record cannot start with {tag!r}")


def interrupted(admission: Admission, progress: Progress | None) -> UsageEvent:
    """The event of a request whose process died: what had been seen, at its price, marked estimated."""
    completion = 0 if progress is None else progress.completion_tokens
    price = admission.price
    used = cost(admission.prompt_tokens, price.input) + cost(completion, price.output)
    return UsageEvent(
        id=admission.id,
        request_id=admission.request_id,
        started_at=admission.started_at,
        org_id=admission.org_id,
        project_id=admission.project_id,
        key_id=admission.key_id,
        user_id=admission.user_id,
        operation=admission.operation,
        model=admission.model,
        stream=admission.stream,
        provider="",
        endpoint="" if progress is None else progress.endpoint,
        served_name="",
        status=0,
        outcome="interrupted",
        prompt_tokens=admission.prompt_tokens,
        completion_tokens=completion,
        cached_tokens=0,
        reasoning_tokens=0,
        estimated=True,
        cost_micros=rounded(used) + price.request,
        first_byte_us=0,
        latency_us=0,
        attempts=0 if progress is None else 1,
    )
