"""The registry's tables: which provider offers which model at which endpoint, and its state when last probed.

What routes requests is in memory (`routing_table`); these rows keep creation times and what people look at.
Expanded headers are never stored, only the template a file was written with.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from indigo.backends.sql.base import Base


class ProviderRow(Base):
    __tablename__ = "providers"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    source: Mapped[str]
    """file | engine"""
    headers: Mapped[dict[str, str]]
    """As written, `${NAME}` unexpanded, literal values left out."""
    enabled: Mapped[bool]
    created_at: Mapped[float]
    updated_at: Mapped[float]


class ModelRow(Base):
    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("provider_id", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    provider_id: Mapped[str] = mapped_column(ForeignKey("providers.id", ondelete="CASCADE"))
    name: Mapped[str]
    served_name: Mapped[str]
    settings: Mapped[dict[str, Any]]
    """Operations, aliases, fallbacks, context length and prices, as they were last read."""
    enabled: Mapped[bool]
    created_at: Mapped[float]
    updated_at: Mapped[float]


class ModelEndpointRow(Base):
    __tablename__ = "model_endpoints"
    __table_args__ = (UniqueConstraint("provider_id", "url"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    provider_id: Mapped[str] = mapped_column(ForeignKey("providers.id", ondelete="CASCADE"))
    url: Mapped[str]
    status: Mapped[str]
    """healthy | unhealthy | gone"""
    last_error: Mapped[str]
    last_checked: Mapped[float]
