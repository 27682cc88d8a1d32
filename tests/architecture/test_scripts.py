"""The two commands: what they say when something is missing, and that a second start installs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "dirname", "basename", "cmp", "cat", "rm", "id", "awk", "cp", "env")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts and locks in a path with spaces, and a folder of commands that holds no Python."""
    folder = tmp_path / "a path with spaces"
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return folder


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def serve(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(clone.parent / "bin")}
    command = [str(clone / "scripts/serve"), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_without_a_python_it_says_which_ones_do_and_how_to_get_one(clone: Path) -> None:
    executable(clone.parent / "bin/python3", "exit 1")
    result = serve(clone)
    assert result.returncode == 1
    assert "Python 3.11, 3.12 or 3.13" in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr


def test_without_the_venv_module_it_names_the_debian_package(clone: Path) -> None:
    executable(clone.parent / "bin/python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')
    result = serve(clone)
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_second_start_installs_nothing_and_passes_its_arguments_on(clone: Path, lock: str) -> None:
    executable(clone / ".venv/bin/indigo", 'printf "%s|" "$@"')
    shutil.copy(clone / lock, clone / f".venv/installed-{lock}")
    shutil.copy(clone / "pyproject.toml", clone / f".venv/installed-{lock}-project")
    result = serve(clone, "--data-dir", "a b", "--port=1")
    assert (result.stdout, result.stderr) == ("serve|--data-dir|a b|--port=1|", "")


def test_a_changed_lock_is_noticed(clone: Path) -> None:
    executable(clone / ".venv/bin/indigo", 'printf "started"')
    executable(clone / ".venv/bin/python", 'case "$*" in *version_info*) exit 0 ;; *) exit 1 ;; esac')
    (clone / ".venv/installed-requirements.lock").write_text("older\n")
    result = serve(clone)
    assert result.returncode == 1
    assert "Installing the packages of requirements.lock" in result.stderr
    assert "Nothing was started" in result.stderr
    assert result.stdout == ""
