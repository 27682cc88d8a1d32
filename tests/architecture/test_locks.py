"""The lock files are in step with pyproject.toml, hashed, and name no host."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"requirements.lock": ["build"], "requirements-dev.lock": ["build", "test", "check"]}
ENTRY = re.compile(r"^(\S+==\S+(?: ; [^\\]+?)?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted(groups: list[str]) -> list[Requirement]:
    described = project()
    lines: list[str] = [*described["project"]["dependencies"]]
    for group in groups:
        lines += described["dependency-groups"][group]
    return [Requirement(line) for line in lines]


def pinned(lock: str) -> list[Requirement]:
    return [Requirement(entry) for entry, _ in ENTRY.findall((ROOT / lock).read_text())]


def versions(lock: str, python: str) -> dict[str, str]:
    """What the lock installs on Linux with that Python."""
    known: dict[str, Any] = {**default_environment()}
    environment = {**known, "python_full_version": python + ".5", "python_version": python}
    return {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pinned(lock)
        if pin.marker is None or pin.marker.evaluate(environment)
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_an_exact_version_with_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert ENTRY.sub("", text) == ""
    assert "://" not in text


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_the_project_asks_for(lock: str, python: str) -> None:
    have = versions(lock, python)
    for requirement in wanted(LOCKS[lock]):
        name = canonicalize_name(requirement.name)
        assert name in have, f"{name} is not in {lock}; run scripts/lock"
        assert requirement.specifier.contains(have[name]), f"{name} {have[name]} is not {requirement}; run scripts/lock"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_tests_run_on_the_versions_that_are_served_with(python: str) -> None:
    development = versions("requirements-dev.lock", python)
    for name, version in versions("requirements.lock", python).items():
        assert development[name] == version


def test_the_project_asks_for_ranges_and_not_for_one_version() -> None:
    for requirement in wanted(["build", "test", "check"]):
        assert "==" not in str(requirement.specifier), requirement
