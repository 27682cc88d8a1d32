"""`indigo mock-upstream`: an OpenAI-compatible server that makes its answers up and fails on demand."""

from __future__ import annotations

import typer

from indigo.kernel.errors import InvalidRequest


def mock_upstream(
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(9000, min=1, max=65535, help="Port to listen on."),
    first_byte: float = typer.Option(0.0, min=0.0, help="Seconds before the first byte."),
    between: float = typer.Option(0.0, min=0.0, help="Seconds between the chunks of a stream."),
    chunks: int = typer.Option(10, min=1, help="Chunks of a stream."),
    usage: bool = typer.Option(True, help="Tell the tokens used."),
) -> None:
    """Run a made-up model server for development and load. Models named mock-fault-… fail in the way they say."""
    from indigo.engines import mock

    typer.echo(f"The mock upstream answers at http://{host}:{port}/v1 for any model name.")
    typer.echo(f"Faults: {', '.join(mock.FAULT_MODELS)}")
    options = mock.Options(first_byte=first_byte, between=between, chunks=chunks, usage=usage)
    try:
        mock.run(host, port, options)
    except OSError as error:
        raise InvalidRequest(f"Cannot listen on {host} port {port}: {error.strerror}.") from None
