"""YAML read strictly, every value knowing its line: the grammar half of the providers file.

Duplicate and unknown keys, wrong types, files that explode or nest without end are refused with file, line
and reason; `${NAME}` and `${NAME:-default}` are taken from the environment. What the values mean is
`providers_file`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from indigo.kernel.errors import InvalidRequest

BYTES_MOST = 1024 * 1024
EVENTS_MOST = 100_000
DEPTH_MOST = 16

_STRING = "tag:yaml.org,2002:str"
_INTEGER = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOLEAN = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class ProvidersFileError(InvalidRequest):
    """The message begins with the file and the line."""

    code = "invalid_providers_file"


class Document:
    """One file: where its values come from, and how its errors are said."""

    def __init__(self, text: str, source: str, environ: Mapping[str, str]) -> None:
        self.source = source
        self._environ = environ
        self.root = self._compose(text)

    def _compose(self, text: str) -> Node | None:
        if len(text.encode("utf-8", "surrogatepass")) > BYTES_MOST:
            self._refuse(1, f"the file is larger than {BYTES_MOST} bytes")
        try:
            depth = 0
            for count, event in enumerate(cast("Iterator[yaml.Event]", yaml.parse(text, yaml.SafeLoader))):  # pyright: ignore[reportUnknownMemberType]
                depth += isinstance(event, yaml.CollectionStartEvent)
                depth -= isinstance(event, yaml.CollectionEndEvent)
                if depth > DEPTH_MOST or count > EVENTS_MOST:
                    self._refuse(event.start_mark.line + 1, "it is nested too deeply, or holds too much")
                if isinstance(event, yaml.AliasEvent):
                    self._refuse(
                        event.start_mark.line + 1,
                        f"*{event.anchor}: YAML aliases are not supported; repeat it",
                    )
            return cast("Node | None", yaml.compose(text, yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}")
        except yaml.YAMLError as error:
            self._refuse(1, f"not YAML: {' '.join(str(error).split())}")

    def _refuse(self, line: int, reason: str) -> NoReturn:
        raise ProvidersFileError(f"{self.source}, line {line}: {reason}.")

    def fail(self, node: Node, reason: str) -> NoReturn:
        self._refuse(node.start_mark.line + 1, reason)

    def mapping(self, node: Node, what: str) -> dict[str, Node]:
        """Its keys and value nodes; `what` it is, for errors."""
        if not isinstance(node, MappingNode):
            self.fail(node, f"{what} should be a mapping (key: value)")
        found: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag != _STRING:
                self.fail(key, f"a key of {what} should be text; put it in quotes")
            if key.value in found:
                self.fail(key, f"the key {key.value!r} appears twice in {what}")
            found[key.value] = value
        return found

    def fields(self, node: Node, what: str, allowed: frozenset[str]) -> dict[str, Node]:
        """A mapping with no keys but `allowed`; keys without a value (null) are left out."""
        found = self.mapping(node, what)
        for key, value in found.items():
            if key not in allowed:
                self.fail(value, f"{what} has no {key!r}; it may have {', '.join(sorted(allowed))}")
        return {key: value for key, value in found.items() if value.tag != _NULL}

    def items(self, node: Node | None, what: str) -> Iterator[Node]:
        if node is None:
            return
        if not isinstance(node, SequenceNode):
            self.fail(node, f"{what} should be a list")
        yield from node.value

    def written(self, node: Node, what: str) -> str:
        """The text as it stands in the file, nothing expanded."""
        if not isinstance(node, ScalarNode) or node.tag != _STRING:
            self.fail(node, f"{what} should be text; put it in quotes")
        return node.value

    def text(self, node: Node, what: str) -> str:
        """Expanded, without outer blanks, never empty, without control characters."""
        value = self.expand(node, self.written(node, what)).strip()
        if not value:
            self.fail(node, f"{what} is empty")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            self.fail(node, f"{what} contains a control character")
        return value

    def integer(self, node: Node, what: str, least: int, most: int) -> int:
        value = self._scalar(node, _INTEGER)
        if value is None or not re.fullmatch(r"[+-]?[0-9]{1,18}", value) or not least <= int(value) <= most:
            self.fail(node, f"{what} should be a whole number from {least} to {most}")
        return int(value)

    def decimal(self, node: Node, what: str) -> str:
        """The digits of a finite number that is not negative, kept as text so that nothing is rounded."""
        value = self._scalar(node, _INTEGER, _FLOAT)
        try:
            number = float(value) if value is not None else math.nan
        except ValueError:
            number = math.nan
        if value is None or not math.isfinite(number) or number < 0:
            self.fail(node, f"{what} should be a number, 0 or more")
        return value

    def boolean(self, node: Node, what: str) -> bool:
        value = (self._scalar(node, _BOOLEAN) or "").lower()
        if value not in ("true", "false"):
            self.fail(node, f"{what} should be true or false")
        return value == "true"

    def _scalar(self, node: Node, *tags: str) -> str | None:
        """The text of a scalar of one of `tags`, or of a string that is a reference to the environment."""
        if not isinstance(node, ScalarNode):
            return None
        if node.tag == _STRING and "${" in node.value:
            return self.expand(node, node.value).strip()
        return node.value if node.tag in tags else None

    def expand(self, node: Node, text: str) -> str:
        """`text` with its `${NAME}` and `${NAME:-default}` replaced; `$${` stands for a plain `${`."""

        def replacement(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = _NAME.fullmatch(match[1] or "") if match[0].endswith("}") else None
            if name is None:
                self.fail(node, "a reference should be ${NAME} or ${NAME:-default}")
            value = self._environ.get(name[1])
            if name[2] is not None:
                return value or name[2]
            if value is None:
                self.fail(node, f"the environment variable {name[1]} is not set; set it, or give a default")
            return value

        return _REFERENCE.sub(replacement, text)


def without_secrets(written: str) -> str:
    """A header's value with its references (defaults dropped) and scheme; anything else may be a secret."""
    parts: list[str] = []
    last = 0
    for match in _REFERENCE.finditer(written):
        parts.append(_literal(written[last : match.start()]))
        name = _NAME.fullmatch(match[1] or "")
        parts.append(f"${{{name[1]}}}" if name else "***")
        last = match.end()
    parts.append(_literal(written[last:]))
    return "".join(parts)


def _literal(text: str) -> str:
    return text if text.strip().lower() in ("", "bearer", "basic") else "***"
