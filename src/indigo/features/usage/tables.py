"""The table of usage events: one row for every admitted request. Rows are never changed.

No foreign keys: what was used stays true when a key, a project or a model is gone.
"""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from indigo.backends.sql.base import Base


class UsageEventRow(Base):
    """The fields are those of `gateway.ports.UsageEvent`; a test holds the two together."""

    __tablename__ = "usage_events"
    __table_args__ = (
        Index(None, "org_id", "started_at"),
        Index(None, "key_id", "started_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str]
    started_at: Mapped[float]
    org_id: Mapped[str]
    project_id: Mapped[str | None]
    key_id: Mapped[str]
    user_id: Mapped[str | None]
    operation: Mapped[str]
    model: Mapped[str]
    stream: Mapped[bool]
    provider: Mapped[str]
    endpoint: Mapped[str]
    served_name: Mapped[str]
    status: Mapped[int]
    outcome: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    reasoning_tokens: Mapped[int]
    estimated: Mapped[bool]
    cost_micros: Mapped[int]
    first_byte_us: Mapped[int]
    latency_us: Mapped[int]
    attempts: Mapped[int]
