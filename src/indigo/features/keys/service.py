"""The rules of API keys: who may have one, what it may do, when it dies.

Every method works within the unit of work of its caller. The key itself is returned once, by `create`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql import changes
from indigo.features.keys import store
from indigo.features.keys.tables import ApiKey
from indigo.features.tenancy.scope import OrgScope
from indigo.features.tenancy.service import TOPIC, Tenancy
from indigo.kernel import api_keys
from indigo.kernel.clock import Clock
from indigo.kernel.errors import InvalidRequest, NotFound
from indigo.kernel.ids import new_id

PROJECT_KINDS = frozenset({"project", "service", "ephemeral"})
"""Kinds that belong to a project; the others to the whole organization."""


class CreatedKey(msgspec.Struct, frozen=True):
    """`secret` is the key, shown this once; repr leaves it out."""

    id: str
    secret: str
    row: ApiKey

    def __repr__(self) -> str:
        return f"CreatedKey(id={self.id!r})"


class Keys:
    def __init__(self, tenancy: Tenancy, clock: Clock) -> None:
        self._tenancy = tenancy
        self._clock = clock

    async def create(
        self,
        session: AsyncSession,
        scope: OrgScope,
        *,
        kind: str,
        name: str,
        project_id: str | None = None,
        user_id: str | None = None,
        models: Sequence[str] | None = None,
        expires_at: float | None = None,
    ) -> CreatedKey:
        """A new key. Raises InvalidRequest for arguments that do not fit, NotFound for an unknown project."""
        await self._check(session, scope, kind, project_id, expires_at)
        if not name.strip() or len(name) > 200 or not name.isprintable():
            raise InvalidRequest("A key's name has 1 to 200 printable characters.", param="name")
        secret = api_keys.mint(kind)
        row = ApiKey(
            id=new_id("key"),
            digest=api_keys.digest(secret.encode("ascii")),
            redacted=api_keys.redacted(secret),
            kind=kind,
            name=name.strip(),
            project_id=project_id,
            user_id=user_id,
            models=None if models is None else sorted(set(models)),
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        await store.add(session, scope, row)
        return CreatedKey(id=row.id, secret=secret, row=row)

    async def _check(
        self,
        session: AsyncSession,
        scope: OrgScope,
        kind: str,
        project_id: str | None,
        expires_at: float | None,
    ) -> None:
        if kind not in api_keys.KINDS:
            raise InvalidRequest(f"A key's kind is one of {', '.join(api_keys.KINDS)}.", param="kind")
        if (kind in PROJECT_KINDS) != (project_id is not None):
            needs = "needs a project" if kind in PROJECT_KINDS else "is for no single project"
            raise InvalidRequest(f"A key of kind {kind} {needs}.", param="project_id")
        if kind == "ephemeral" and expires_at is None:
            raise InvalidRequest("A key of kind ephemeral needs an expiry.", param="expires_at")
        if expires_at is not None and not self._clock.now() < expires_at < math.inf:
            raise InvalidRequest("A key's expiry is a time to come.", param="expires_at")
        if project_id is not None:
            await self._tenancy.project(session, scope, project_id)

    async def list(self, session: AsyncSession, scope: OrgScope) -> list[ApiKey]:
        """Newest first, the revoked ones too."""
        return await store.listed(session, scope)

    async def revoke(self, session: AsyncSession, scope: OrgScope, key_id: str) -> ApiKey:
        """The key is dead from the end of this unit of work; twice is as good as once. Raises NotFound."""
        row = await store.one(session, scope, key_id)
        if row is None:
            raise NotFound(f"There is no key {key_id!r}.", code="key_not_found")
        if row.revoked_at is None:
            row.revoked_at = self._clock.now()
            await session.flush()
            await changes.bump(session, TOPIC)
        return row

    async def used(self, session: AsyncSession, times: Mapping[str, float]) -> None:
        """Note when keys were last used, by key id."""
        if times:
            await store.touch(session, times)
