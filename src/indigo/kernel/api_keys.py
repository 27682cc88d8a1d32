"""The format of API keys: `sk-<kind>-` + 43 base-62 characters (256 random bits) + a 6-character CRC-32.

The checksum lets secret scanners and typing errors be recognised offline; it proves nothing else. What is
stored is the SHA-256 of the whole key: 256 random bits need no slow hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

from indigo.kernel.ids import base62

KINDS = {
    "project": "sk-proj-",
    "admin": "sk-admin-",
    "organization": "sk-org-",
    "service": "sk-svcacct-",
    "ephemeral": "sk-eph-",
}
PATTERN = re.compile(r"sk-(?:proj|admin|org|svcacct|eph)-[0-9A-Za-z]{49}")


def mint(kind: str) -> str:
    """A new key of `kind` (a key of `KINDS`)."""
    body = KINDS[kind] + base62(secrets.randbits(256), 43)
    return body + checksum(body)


def checksum(body: str) -> str:
    return base62(zlib.crc32(body.encode("ascii")), 6)


def well_formed(key: str) -> bool:
    """Whether `key` has the format and a right checksum; says nothing about whether it was ever issued."""
    return PATTERN.fullmatch(key) is not None and checksum(key[:-6]) == key[-6:]


def digest(key: bytes) -> bytes:
    """The 32 bytes a key is stored and looked up by."""
    return hashlib.sha256(key).digest()


def redacted(key: str) -> str:
    """What may be shown of a key: its prefix and last four characters."""
    prefix = key[: key.rindex("-") + 1]
    return f"{prefix}…{key[-4:]}"
