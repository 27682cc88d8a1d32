"""Promises and tests name each other: nothing is claimed untested, nothing is tested unclaimed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.promises.promises import CLAIMED, LATER

TESTS = Path(__file__).resolve().parents[1]


class Mark(NamedTuple):
    kind: str
    id: str
    where: str


def marks() -> list[Mark]:
    """Every promise and threat that a test is marked with, read from the source without running it."""
    return [
        mark
        for path in sorted(TESTS.rglob("test_*.py"))
        for mark in marks_in(ast.parse(path.read_text()), path.relative_to(TESTS).as_posix())
    ]


def marks_in(tree: ast.Module, where: str) -> Iterator[Mark]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        kind, owner = node.func.attr, node.func.value
        if kind in ("promise", "threat") and isinstance(owner, ast.Attribute) and owner.attr == "mark":
            for argument in node.args:
                id = argument.value if isinstance(argument, ast.Constant) else ast.unparse(argument)
                yield Mark(kind, str(id), f"{where}:{node.lineno}")


def ids(kind: str) -> set[str]:
    return {mark.id for mark in marks() if mark.kind == kind}


def test_the_lists_are_well_formed() -> None:
    assert not CLAIMED.keys() & LATER.keys()
    assert all(re.fullmatch(r"P\d{2,3}", id) and text for id, text in (CLAIMED | LATER).items())


def test_every_claimed_promise_has_a_test() -> None:
    assert not sorted(CLAIMED.keys() - ids("promise"))


def test_every_promise_a_test_names_is_known_and_claimed() -> None:
    assert not [mark for mark in marks() if mark.kind == "promise" and mark.id not in CLAIMED]


def test_every_threat_a_test_names_is_well_formed() -> None:
    assert not [id for id in ids("threat") if not re.fullmatch(r"[TF]\d{1,3}", id)]


def test_marks_are_found_on_functions_modules_and_parameters() -> None:
    source = """
pytestmark = pytest.mark.promise("P01")
@pytest.mark.threat("T1", "T2")
def test_a(): ...
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.promise("P02"))])
def test_b(x): ...
"""
    assert [mark.id for mark in marks_in(ast.parse(source), "x")] == ["P01", "T1", "T2", "P02"]
