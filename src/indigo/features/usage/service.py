"""What people may ask about usage. Every method works within the unit of work of its caller."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from indigo.features.tenancy.scope import OrgScope
from indigo.features.usage import store
from indigo.features.usage.store import Total
from indigo.features.usage.tables import UsageEventRow
from indigo.kernel.errors import InvalidRequest

MOST_LISTED = 1000


class Usage:
    async def count(self, session: AsyncSession, scope: OrgScope) -> int:
        return await store.count(session, scope)

    async def latest(self, session: AsyncSession, scope: OrgScope, limit: int = 20) -> list[UsageEventRow]:
        """Newest first, `MOST_LISTED` at the most."""
        return await store.latest(session, scope, max(1, min(limit, MOST_LISTED)))

    async def totals(
        self,
        session: AsyncSession,
        scope: OrgScope,
        *,
        by: str,
        since: float = 0.0,
        until: float = 2.0**53,
    ) -> list[Total]:
        """Sums by "key", "model" or "day" (UTC) of what started in [since, until)."""
        if by not in ("key", "model", "day"):
            raise InvalidRequest("Usage is summed by key, model or day.", param="by")
        return await store.totals(session, scope, by, since, until)
