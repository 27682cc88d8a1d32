"""What a person sees when the server is up: where it is, what it runs on, and, once, the first credentials."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from indigo import VERSION
from indigo.features.keys.first_start import FirstStart
from indigo.kernel.settings import Settings


def base_url(settings: Settings, port: int) -> str:
    """The address to give to people on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{port}"


def show(
    settings: Settings,
    port: int,
    *,
    database: str,
    models: Sequence[str],
    notices: Sequence[str],
    first: FirstStart | None,
) -> None:
    """Prints to standard output. The keys and the password of `first` are shown now and never again."""
    console = Console(highlight=False, soft_wrap=True)
    url = base_url(settings, port)
    console.print(f"\n[bold]Indigo {VERSION}[/bold] is ready.")
    console.print(f"  API            {url}/v1")
    if settings.enable_swagger:
        console.print(f"  Documentation  {url}/api/swagger/index.html")
    console.print(f"  Database       {escape(database)}")
    console.print(f"  Counters       in memory, {'of each process' if settings.workers > 1 else 'of this process'}")
    console.print("  Usage          spool on disk, then the database")
    console.print(f"  Models         {escape(', '.join(models)) or 'none yet; see docs/operating/providers.md'}")
    for notice in notices:
        console.print(f"  [yellow]Note[/yellow]           {escape(notice)}")
    if first is not None:
        _first_start(console, url, models, first)
    console.print()


def _first_start(console: Console, url: str, models: Sequence[str], first: FirstStart) -> None:
    console.print("\n[bold]First start.[/bold] What follows is shown once; keep it.")
    console.print(f"  Admin e-mail   {escape(first.admin_email)}")
    if first.admin_password is not None:
        console.print(f"  Admin password {escape(first.admin_password)}")
    console.print(f"  Project key    {first.project_key}")
    console.print(f"  Admin key      {first.admin_key}")
    if models:
        console.print("\nTry it:\n")
        console.print(escape(curl(url, models[0], first.project_key)))


def curl(url: str, model: str, key: str) -> str:
    """A command that works when pasted into a shell."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}], "stream": True})
    insecure = "-k " if url.startswith("https") else ""
    return (
        f"curl -N {insecure}{url}/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )
