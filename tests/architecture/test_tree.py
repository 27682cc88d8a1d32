"""Nothing in the tree belongs to one machine, one moment or one network."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Put together from parts, so that this file does not find itself.
LEFT_OPEN = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error"]) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:home|root|Users|work|mnt)/[\w.-]+")
REGISTRY = re.compile(
    "|".join(["py" + r"pi\.org", "files.python" + "hosted", "registry.npm" + "js", "--index" + "-url"])
)


@cache
def texts() -> dict[str, str]:
    """Every text file of the tree that git knows or would add."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    found: dict[str, str] = {}
    for name in filter(None, names):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            found[name] = content.decode()
    return found


@pytest.mark.parametrize("pattern", [LEFT_OPEN, MACHINE_PATH, REGISTRY], ids=["left open", "paths", "registries"])
def test_nothing_foreign_is_left_in_the_tree(pattern: re.Pattern[str]) -> None:
    assert len(texts()) > 50
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_tests_are_never_skipped() -> None:
    skips = re.compile(r"mark\.(skip|xfail)|pytest\.(skip|importorskip|xfail)\(")
    found = [name for name, text in texts().items() if name.startswith("tests/") and skips.search(text)]
    assert not found
