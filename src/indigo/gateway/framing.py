"""What the HTTP parser lets through and we do not: ambiguous framing, oversized heads (RFC 9112 §6, §9.3).

Whoever stands in front of us must see the same message boundaries that we see, so anything that two parsers
could read differently is refused, with the connection closed.
"""

from __future__ import annotations

from indigo.kernel.errors import InvalidRequest, TooLarge

MAX_URL = 8 * 1024
MAX_HEADERS = 100
MAX_HEAD = 32 * 1024

Headers = list[tuple[bytes, bytes]]


class HeadTooLarge(TooLarge):
    status = 431
    code = "headers_too_large"


class UrlTooLong(TooLarge):
    status = 414
    code = "url_too_long"


def check_head(url: bytes, headers: Headers, version: str) -> None:
    """Raises InvalidRequest, HeadTooLarge or UrlTooLong for a head that is not to be served."""
    if len(url) > MAX_URL:
        raise UrlTooLong(f"The URL is longer than {MAX_URL} bytes.")
    if len(headers) > MAX_HEADERS:
        raise HeadTooLarge(f"More than {MAX_HEADERS} headers.")
    size = 0
    lengths = encodings = hosts = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"content-length":
            lengths += 1
            if not value.isdigit():
                raise InvalidRequest("Content-Length is not a plain number.", code="invalid_framing")
        elif name == b"transfer-encoding":
            encodings += 1
            if value.lower() != b"chunked":
                raise InvalidRequest("Transfer-Encoding may only be 'chunked'.", code="invalid_framing")
        elif name == b"host":
            hosts += 1
    if size > MAX_HEAD:
        raise HeadTooLarge(f"The headers are larger than {MAX_HEAD} bytes.")
    if lengths + encodings > 1:
        raise InvalidRequest(
            "More than one Content-Length or Transfer-Encoding: the end of the body is ambiguous.",
            code="invalid_framing",
        )
    if hosts != 1 and (hosts or version == "1.1"):
        raise InvalidRequest("A request needs exactly one Host header.", code="invalid_host")


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value under `name` (lower case)."""
    for key, value in headers:
        if key == name:
            return value
    return None
