"""All SQL of usage. Reading is org-scoped; inserting is not, since a journal holds many organizations."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Dialect, Integer, bindparam, case, cast, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.features.tenancy.scope import OrgScope
from indigo.features.usage.tables import UsageEventRow
from indigo.gateway.ports import UsageEvent

DAY = 86_400


SUMS: tuple[ColumnElement[int], ...] = (
    func.count(),
    func.sum(UsageEventRow.prompt_tokens),
    func.sum(UsageEventRow.completion_tokens),
    func.sum(UsageEventRow.cached_tokens),
    func.sum(UsageEventRow.reasoning_tokens),
    func.sum(UsageEventRow.cost_micros),
    func.sum(case((UsageEventRow.estimated, 1), else_=0)),
)
"""In the order of `Total`'s fields."""


class Total(msgspec.Struct, frozen=True):
    """Sums over the events of one group: a key's id, a model's, or a day as its first Unix second."""

    group: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_micros: int
    estimated: int


async def add(session: AsyncSession, events: Sequence[UsageEvent]) -> None:
    """Insert those that are not there yet: an event delivered twice is stored once."""
    connection = await session.connection()
    await connection.exec_driver_sql(
        _insertion(session.get_bind().dialect), [msgspec.structs.astuple(event) for event in events]
    )


@functools.cache
def _insertion(dialect: Dialect) -> str:
    """The INSERT for rows that are `astuple` of an event. Written once: SQLAlchemy's own way from dictionaries to
    parameters costs five times what the driver does (7 against 1.3 µs a row).
    """
    columns: dict[str, Any] = {name: bindparam(name) for name in UsageEvent.__struct_fields__}
    made = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
    statement = made(UsageEventRow).values(columns).on_conflict_do_nothing(index_elements=[UsageEventRow.id])
    compiled = statement.compile(dialect=dialect)
    if list(compiled.positiontup or ()) != list(UsageEvent.__struct_fields__):
        raise TypeError("the columns of usage_events are not in the order of UsageEvent's fields")
    return str(compiled)


async def count(session: AsyncSession, scope: OrgScope) -> int:
    statement = select(func.count()).select_from(UsageEventRow).where(UsageEventRow.org_id == scope.org_id)
    return (await session.execute(statement)).scalar_one()


async def latest(session: AsyncSession, scope: OrgScope, limit: int) -> list[UsageEventRow]:
    """Newest first."""
    statement = (
        select(UsageEventRow)
        .where(UsageEventRow.org_id == scope.org_id)
        .order_by(UsageEventRow.started_at.desc(), UsageEventRow.id.desc())
        .limit(limit)
    )
    return list(await session.scalars(statement))


async def totals(session: AsyncSession, scope: OrgScope, by: str, since: float, until: float) -> list[Total]:
    """Sums of the events that started in [since, until), by "key", "model" or "day"."""
    group = _groups(session)[by]
    statement = select(group, *SUMS).where(
        UsageEventRow.org_id == scope.org_id,
        UsageEventRow.started_at >= since,
        UsageEventRow.started_at < until,
    )
    rows = await session.execute(statement.group_by(group).order_by(group))
    return [Total(str(row[0]), *(int(value) for value in row[1:])) for row in rows]


def _groups(session: AsyncSession) -> dict[str, ColumnElement[Any]]:
    days = UsageEventRow.started_at / DAY
    if session.get_bind().dialect.name == "postgresql":
        days = func.floor(days)  # its CAST rounds; SQLite's cuts off, and its floor() is optional
    return {
        "key": UsageEventRow.key_id.expression,
        "model": UsageEventRow.model.expression,
        "day": cast(days, Integer) * DAY,
    }
