"""What every test shares: the databases, and the two markers that tie tests to promises and threats."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.support.databases"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(*ids): the promises that this test shows to be kept")
    config.addinivalue_line("markers", "threat(*ids): the attacks or faults that this test shows to be harmless")
