"""The command tree. What the commands do is in `processes`; here are their options, and how errors are told."""

from __future__ import annotations

import sys

import typer
import uvloop

from indigo import VERSION
from indigo.cli import keys, mock
from indigo.kernel import settings
from indigo.kernel.errors import IndigoError

app = typer.Typer(
    help="Indigo: your own OpenAI, self-hosted. Every option is also an environment variable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.command("mock-upstream")(mock.mock_upstream)


@app.command()
def serve(
    host: str | None = typer.Option(None, help="Address to listen on; 0.0.0.0 for every interface."),
    port: int | None = typer.Option(None, min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    data_dir: str | None = typer.Option(None, help="Folder for the database, the spool and models."),
    model: str | None = typer.Option(None, help="auto, demo, none, a GGUF file, or hf:owner/repo[:file]."),
    embedding_model: str | None = typer.Option(None, help="The same, for embeddings."),
    engine: str | None = typer.Option(None, help="Engine for --model: llama (embedded), vllm or mock."),
    providers: str | None = typer.Option(None, help="The providers.yaml to read, and to follow while running."),
    workers: int | None = typer.Option(None, min=1, help="Server processes that share the port."),
    log_level: str | None = typer.Option(None, help="debug, info, warning or error."),
    log_format: str | None = typer.Option(None, help="text for people, json for machines."),
) -> None:
    """Start the server: database, engine, gateway and API, in one command."""
    from indigo.processes import solo

    chosen = settings.load(
        host=host,
        port=port,
        data_dir=data_dir,
        model=model,
        embedding_model=embedding_model,
        engine=engine,
        providers_file=providers,
        workers=workers,
        log_level=log_level,
        log_format=log_format,
    )
    uvloop.run(solo.run(chosen))


@app.command()
def migrate(check: bool = typer.Option(False, help="Only say what is pending; exit status 1 if anything is.")) -> None:
    """Bring the database schema up to date."""
    from indigo.processes import orders

    status = uvloop.run(orders.migrate(settings.load(), check=check))
    if not status.pending:
        typer.echo(f"The schema is up to date ({status.head}).")
    elif check:
        typer.echo(f"Pending: {', '.join(status.pending)}. Run 'indigo migrate'.")
        raise typer.Exit(1)
    else:
        typer.echo(f"Migrated to {status.head}.")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(VERSION)


def main() -> None:
    """Run a command; an error of ours is one sentence and exit status 1, not a stack."""
    try:
        app()
    except IndigoError as error:
        typer.secho(f"Error: {error.message}", fg="red", err=True)
        sys.exit(1)
