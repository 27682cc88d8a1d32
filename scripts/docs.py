"""Generates the pages of `docs/` that repeat what the code says: settings, commands, error codes."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from indigo.cli.main import app
from indigo.kernel import settings

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "indigo"
LAST = "\U0010ffff"
"""Sorts behind every message: a class's own code, which needs a row even where nothing names it."""
GENERATED = "<!-- Written by scripts/docs; change the code instead. -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a page is out of date")
    check: bool = parser.parse_args().check
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date; run scripts/docs\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages()[path])
    sys.exit(1 if check and stale else 0)


def pages() -> dict[Path, str]:
    """Every generated page, by where it stands."""
    return {
        ROOT / "docs/operating/settings.md": settings_page(),
        ROOT / "docs/operating/cli.md": cli_page(),
        ROOT / "docs/api/errors.md": errors_page(),
    }


def table(heads: list[str], rows: list[list[str]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [heads, ["---"] * len(heads), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def settings_page() -> str:
    rows: list[list[str]] = []
    for field in settings.fields():
        names = ", ".join(f"`{name}`" for name in (field.metadata["env"], *field.metadata["aliases"]))
        rows.append([names, _default(field.default), field.metadata["help"]])
    return f"""# Settings

{GENERATED}

Every setting is an environment variable, read once at start. An option of `indigo serve` wins over its
variable; an empty variable counts as unset. Where a row has several names, the first that is set is taken.

{table(["Variable", "Default", "What it does"], rows)}"""


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if str(value) else "–"


def cli_page() -> str:
    sections = list(_commands(typer.main.get_command(app), "indigo"))
    return f"# Commands\n\n{GENERATED}\n\n" + "\n".join(sections)


def _commands(command: Any, name: str) -> Iterator[str]:
    """One section for `command`, then those of its subcommands."""
    rows = [
        [", ".join(f"`{option}`" for option in parameter.opts), getattr(parameter, "help", None) or ""]
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
    ]
    text = f"## {name}\n\n{(command.help or '').strip()}\n"
    yield text + (f"\n{table(['Argument or option', 'What it does'], rows)}" if rows else "")
    for subname, subcommand in sorted(getattr(command, "commands", {}).items()):
        if not subcommand.hidden:
            yield from _commands(subcommand, f"{name} {subname}")


class Kind(NamedTuple):
    """A class of the error tree."""

    status: int
    type: str
    code: str


class Raised(NamedTuple):
    code: str
    status: int
    type: str
    message: str


def errors_page() -> str:
    rows: dict[str, list[str]] = {}
    for raised in sorted(set(raised_errors())):
        message = "–" if raised.message in (LAST, "…", "") else raised.message
        row = rows.setdefault(raised.code, [f"`{raised.code}`", str(raised.status), f"`{raised.type}`", message])
        if str(raised.status) not in row[1].split(", "):
            row[1] += f", {raised.status}"
    return f"""# Error codes

{GENERATED}

Every error is `{{"error": {{"type", "code", "message", "param", "request_id"}}}}`. Programs should look at
the HTTP status and `code`; `message` is for people and may change. `…` stands for what varies.

{table(["Code", "Status", "Type", "A message with it"], list(rows.values()))}"""


def raised_errors() -> Iterator[Raised]:
    """Every place in the source that makes an error of the tree, with the message it gives."""
    trees = [ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))]
    kinds = _kinds(trees)
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                kind = kinds[node.func.id]
                code = next((word.value for word in node.keywords if word.arg == "code"), None)
                text = code.value if isinstance(code, ast.Constant) else kind.code
                message = _template(node.args[0]) if node.args else ""
                yield Raised(str(text), kind.status, kind.type, message)
    for kind in kinds.values():
        yield Raised(kind.code, kind.status, kind.type, LAST)


def _kinds(trees: list[ast.Module]) -> dict[str, Kind]:
    """The error tree, read from its class statements; a child takes from its parent what it does not say."""
    classes = {
        node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.bases
    }
    kinds = {"IndigoError": Kind(500, "internal_error", "internal_error")}
    for _ in range(4):  # deeper than the tree will ever be
        for name, node in classes.items():
            base = node.bases[0]
            if isinstance(base, ast.Name) and base.id in kinds:
                kinds[name] = kinds[base.id]._replace(**_attributes(node))
    return kinds


def _attributes(node: ast.ClassDef) -> dict[str, Any]:
    return {
        statement.targets[0].id: statement.value.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in Kind._fields
        and isinstance(statement.value, ast.Constant)
    }


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return "…"


if __name__ == "__main__":
    main()
