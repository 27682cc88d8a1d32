"""Counters that say "something about this topic has changed", raised in the transaction of the change itself.

Within the process, `Database` tells its listeners as soon as the unit of work is committed; between processes
`backends/notices` watches the counters. A reader that missed a notice still sees the counter move.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from indigo.backends.sql.base import Base
from indigo.backends.sql.conflict import insert

CHANGED = "changed topics"
"""Where in `session.info` a unit of work keeps the topics to tell once it is committed."""


class ChangeCounter(Base):
    __tablename__ = "change_counters"

    topic: Mapped[str] = mapped_column(primary_key=True)
    counter: Mapped[int] = mapped_column(BigInteger)


async def bump(session: AsyncSession, topic: str) -> None:
    """Say, with this unit of work, that `topic` has changed."""
    session.info.setdefault(CHANGED, set()).add(topic)
    await session.execute(
        insert(session, ChangeCounter)
        .values(topic=topic, counter=1)
        .on_conflict_do_update(index_elements=[ChangeCounter.topic], set_={"counter": ChangeCounter.counter + 1})
    )


async def counters(session: AsyncSession) -> dict[str, int]:
    """Every topic's counter now."""
    rows = await session.execute(select(ChangeCounter.topic, ChangeCounter.counter))
    return {row.topic: row.counter for row in rows}
