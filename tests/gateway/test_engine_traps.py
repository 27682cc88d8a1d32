"""What the embedded engine gets wrong, and the gateway makes right."""

from __future__ import annotations

import json
from typing import Any

from indigo.gateway import body
from indigo.gateway.operations import CHAT

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": {}}} for name in ("a", "b")
]


def asked(tool_choice: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{}], "tools": TOOLS, "tool_choice": tool_choice, "x": 1}).encode()


def sent(tool_choice: object) -> dict[str, object]:
    given = asked(tool_choice)
    return json.loads(body.rewritten(given, body.single_tool(given, body.read(given, CHAT))))


def test_a_named_tool_is_the_only_one_sent_and_required() -> None:
    changed = sent({"type": "function", "function": {"name": "b"}})
    assert changed["tools"] == [TOOLS[1]]
    assert changed["tool_choice"] == "required"
    assert changed["x"] == 1


def test_no_tool_is_sent_where_none_may_be_called() -> None:
    changed = sent("none")
    assert "tools" not in changed
    assert "tool_choice" not in changed
    assert changed["x"] == 1


def test_other_choices_are_left_alone() -> None:
    assert sent("auto") == json.loads(asked("auto"))
