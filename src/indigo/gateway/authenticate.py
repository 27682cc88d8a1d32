"""From the headers to the credential. The one place that decides what counts as one, for every route."""

from __future__ import annotations

from collections.abc import Sequence

from indigo.kernel import api_keys
from indigo.kernel.errors import InvalidRequest, Unauthorized

OTHER_HEADERS = frozenset((b"x-api-key", b"api-key"))
HOW = "Send your API key as 'Authorization: Bearer sk-…'."


def credential(authorization: bytes | None, other: bytes | None) -> bytes:
    """The bearer token (RFC 6750 §2.1), as bytes. `other` is a key sent in another header, or None.

    Raises Unauthorized where there is none or it is ill-formed, InvalidRequest where two credentials disagree.
    """
    if authorization is None:
        raise Unauthorized(f"No API key was sent. {HOW}", code="missing_api_key")
    if authorization[:7].lower() != b"bearer " or not (token := authorization[7:].strip()):
        raise Unauthorized(f"The Authorization header is not a bearer token. {HOW}")
    if other is not None and other.strip() != token:
        raise InvalidRequest("Two different credentials were sent; send one.", code="ambiguous_credentials")
    return token


def credential_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """`credential` for headers that `framing.read_head` has not sorted. Names are lower case."""
    authorization = [value for name, value in headers if name == b"authorization"]
    others = [value for name, value in headers if name in OTHER_HEADERS]
    if len(authorization) > 1:
        raise Unauthorized(f"More than one Authorization header. {HOW}", code="ambiguous_credentials")
    return credential(authorization[0] if authorization else None, others[0] if others else None)


def check_format(token: bytes) -> None:
    """Recognise what cannot be a key of ours without asking the database. Raises Unauthorized."""
    try:
        text = token.decode("ascii")
    except UnicodeDecodeError:
        raise Unauthorized("The API key holds characters that no key has.") from None
    if not api_keys.well_formed(text):
        raise Unauthorized("The API key is not complete: its format or checksum is wrong. Copy it again.")


def unknown_key() -> Unauthorized:
    """The one answer to keys that are unknown, revoked or deleted: it tells nothing about which."""
    return Unauthorized("The API key is not valid. It may have been revoked; ask for a new one.")
