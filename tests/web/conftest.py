"""The management side and an HTTP client on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.web.side import Side


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
async def client(side: Side) -> AsyncIterator[httpx2.AsyncClient]:
    async with side.client() as client:
        yield client


@pytest.fixture
def bearer(side: Side) -> dict[str, str]:
    return {"Authorization": f"Bearer {side.grants.issue('project')}"}
