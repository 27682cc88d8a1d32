"""Kernel errors as OpenAI's error bodies, in bytes. The tree itself is drawn in `kernel/errors.py`."""

from __future__ import annotations

import msgspec

from indigo.kernel.errors import IndigoError

_encode = msgspec.json.Encoder().encode


def error_body(error: IndigoError, request_id: str) -> bytes:
    """`{"error": {type, code, message, param, request_id}}`; lone surrogates of a client's text are escaped away."""
    message = error.message.encode("utf-8", "backslashreplace").decode()
    return _encode(
        {
            "error": {
                "type": error.type,
                "code": error.code,
                "message": message,
                "param": error.param,
                "request_id": request_id,
            }
        }
    )


def error_event(error: IndigoError, request_id: str) -> bytes:
    """The same as one server-sent event, for a stream that has begun."""
    return b"data: " + error_body(error, request_id) + b"\n\n"
