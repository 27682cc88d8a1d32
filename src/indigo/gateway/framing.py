"""What the HTTP parser lets through and we do not: ambiguous framing, oversized heads (RFC 9112 §6, §9.3).

Whoever stands in front of us must see the same message boundaries that we see, so anything that two parsers
could read differently is refused, with the connection closed.
"""

from __future__ import annotations

from indigo.kernel.errors import InvalidRequest, TooLarge, Unauthorized

MAX_URL = 8 * 1024
MAX_HEADERS = 100
MAX_HEAD = 32 * 1024

Headers = list[tuple[bytes, bytes]]
KNOWN = frozenset(
    b"host authorization content-length transfer-encoding x-request-id expect upgrade x-api-key api-key".split()
)


class HeadTooLarge(TooLarge):
    status = 431
    code = "headers_too_large"


class UrlTooLong(TooLarge):
    status = 414
    code = "url_too_long"


class VersionNotSupported(InvalidRequest):
    status = 505
    code = "http_version_not_supported"


class Head:
    """What the gateway wants to know of a request's headers, gathered in one pass."""

    __slots__ = ("authorization", "chunked", "expects", "length", "other_credential", "request_id", "upgrade")

    def __init__(self) -> None:
        self.authorization: bytes | None = None
        self.other_credential: bytes | None = None
        self.request_id: bytes | None = None
        self.expects = False
        """The client waits for a 100 (Continue) before it sends the body."""
        self.upgrade = False
        self.length = 0
        self.chunked = False


def read_head(url: bytes, headers: Headers, version: str) -> Head:
    """Raises InvalidRequest, HeadTooLarge or UrlTooLong for a head that is not to be served.

    Raises VersionNotSupported for what is neither HTTP/1.0 nor 1.1, and Unauthorized for more than one
    Authorization header: whose request is it?
    """
    if len(url) > MAX_URL:
        raise UrlTooLong(f"The URL is longer than {MAX_URL} bytes.")
    if version != "1.1" and version != "1.0":
        raise VersionNotSupported("Use HTTP/1.1.")
    if len(headers) > MAX_HEADERS:
        raise HeadTooLarge(f"More than {MAX_HEADERS} headers.")
    head, size, framings, hosts = _gather(headers, version)
    if size > MAX_HEAD:
        raise HeadTooLarge(f"The headers are larger than {MAX_HEAD} bytes.")
    if framings > 1:
        raise InvalidRequest(
            "More than one Content-Length or Transfer-Encoding: the end of the body is ambiguous.",
            code="invalid_framing",
        )
    if hosts != 1 and (hosts or version == "1.1"):
        raise InvalidRequest("A request needs exactly one Host header.", code="invalid_host")
    return head


def _gather(headers: Headers, version: str) -> tuple[Head, int, int, int]:
    """The head, the headers' size in bytes, and how many framing and Host headers there are."""
    head = Head()
    size = framings = hosts = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name not in KNOWN:
            continue
        if name == b"host":
            hosts += 1
        elif name == b"authorization":
            if head.authorization is not None:
                raise Unauthorized("More than one Authorization header.", code="ambiguous_credentials")
            head.authorization = value
        elif name == b"content-length" or name == b"transfer-encoding":
            framings += 1
            _framing(head, name, value)
        elif name == b"x-request-id":
            head.request_id = value
        elif name == b"expect":
            head.expects = value.lower() == b"100-continue" and version == "1.1"  # RFC 9110 §10.1.1
        elif name == b"upgrade":
            head.upgrade = True
        else:
            head.other_credential = value
    return head, size, framings, hosts


def _framing(head: Head, name: bytes, value: bytes) -> None:
    if name == b"content-length":
        if not value.isdigit() or len(value) > 18:
            raise InvalidRequest("Content-Length is not a plain number.", code="invalid_framing")
        head.length = int(value)
    else:
        if value.lower() != b"chunked":
            raise InvalidRequest("Transfer-Encoding may only be 'chunked'.", code="invalid_framing")
        head.chunked = True
