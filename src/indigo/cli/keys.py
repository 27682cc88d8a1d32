"""`indigo keys`: create, list and revoke API keys, on the server's machine, with or without the server running."""

from __future__ import annotations

from datetime import UTC, datetime

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from indigo.kernel import api_keys, settings
from indigo.kernel.errors import InvalidRequest

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: str = typer.Argument(help="What the key is for, 1 to 200 characters."),
    kind: str = typer.Option("project", help=f"One of {', '.join(api_keys.KINDS)}."),
    model: list[str] = typer.Option([], help="A model that the key may use; repeat for several. All if left out."),
    days: int | None = typer.Option(None, min=1, help="Days until it expires. Never if left out."),
) -> None:
    """Create a key and print it, once."""
    from indigo.processes import orders

    if kind not in api_keys.KINDS:
        raise InvalidRequest(f"--kind {kind!r} should be one of {', '.join(api_keys.KINDS)}.", code="invalid_option")
    made = uvloop.run(orders.create_key(settings.load(), name=name, kind=kind, models=model, days=days))
    typer.echo(made.secret)
    typer.echo(f"{made.id}: shown once; only its digest is stored.", err=True)


@app.command("list")
def list_() -> None:
    """List the keys; never their secrets."""
    from indigo.processes import orders

    table = Table("Id", "Kind", "Name", "Key", "State", "Expires", "Last used", "Models", box=None)
    for row in uvloop.run(orders.list_keys(settings.load())):
        models = ", ".join(row.models) if row.models is not None else "all"
        table.add_row(
            row.id, row.kind, row.name, row.hint, row.state, _day(row.expires_at), _day(row.last_used_at), models
        )
    console = Console()
    if not console.is_terminal:
        console.width = 200  # for pipes and files: a line each
    console.print(table)


@app.command()
def revoke(key_id: str = typer.Argument(help="The key's id, key_…; see 'indigo keys list'.")) -> None:
    """Revoke a key. Running servers refuse it within a second, or within INDIGO_GRANT_SECONDS at the most."""
    from indigo.processes import orders

    row = uvloop.run(orders.revoke_key(settings.load(), key_id))
    typer.echo(f"{row.id} ({row.name}) is revoked.")


def _day(moment: float | None) -> str:
    return "never" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
