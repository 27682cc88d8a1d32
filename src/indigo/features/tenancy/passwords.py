"""Passwords: argon2id (RFC 9106) in a thread, two at a time, since one takes 64 MiB and tens of ms."""

from __future__ import annotations

import asyncio
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from indigo.kernel.ids import base62


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._room = asyncio.Semaphore(2)

    async def hash(self, password: str) -> str:
        async with self._room:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password_hash: str, password: str) -> bool:
        """Whether it is the password; False as well for a hash that is none."""
        async with self._room:
            try:
                return await asyncio.to_thread(self._hasher.verify, password_hash, password)
            except (VerificationError, InvalidHashError):
                return False


def made_up() -> str:
    """A password nobody has chosen: 119 random bits."""
    return base62(secrets.randbits(119), 20)
