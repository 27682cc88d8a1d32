"""Every setting, once: its environment variable, its default and one sentence. Read at start, then frozen.

Other modules take the values they need as arguments; none reads the environment.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indigo.kernel.errors import InvalidRequest


def setting(env: str, default: Any, text: str, *aliases: str, secret: bool = False) -> Any:
    """A field that `env` (or an alias that existing deployments use) overrides."""
    return dataclasses.field(default=default, metadata={"env": env, "aliases": aliases, "help": text, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    host: str = setting("INDIGO_HOST", "127.0.0.1", "Address to listen on; 0.0.0.0 for every interface.")
    port: int = setting("INDIGO_PORT", 8080, "Port to listen on.", "HTTP_PORT")
    data_dir: Path = setting("INDIGO_DATA_DIR", Path("indigo-data"), "Folder for the database, spool and models.")
    workers: int = setting("INDIGO_WORKERS", 1, "Server processes that share the port.")
    tls_cert: str = setting("INDIGO_TLS_CERT", "", "PEM file with the certificate chain; turns TLS on.")
    tls_key: str = setting("INDIGO_TLS_KEY", "", "PEM file with the certificate's private key.")
    log_level: str = setting("LOG_LEVEL", "info", "debug, info, warning or error.")
    log_format: str = setting("LOG_FORMAT", "text", "text for people, json for machines.")
    enable_swagger: bool = setting("ENABLE_SWAGGER", True, "Serve the API documentation at /api/swagger/index.html.")

    admin_email: str = setting("INDIGO_ADMIN_EMAIL", "admin@localhost", "E-mail of the first system admin.")
    admin_password: str = setting(
        "INDIGO_ADMIN_PASSWORD",
        "",
        "Password of the first system admin; made up and printed once if unset.",
        secret=True,
    )

    database_url: str = setting(
        "DATABASE_URL",
        "",
        "postgresql://user:password@host/name; a SQLite file in the data folder if unset.",
        "DB_POSTGRESQL_WRITE_DSN",
        secret=True,
    )
    auto_migrate: bool = setting("AUTO_MIGRATE", True, "Bring the database schema up to date at start.")

    engine: str = setting("INDIGO_ENGINE", "llama", "Engine for --model: llama (embedded), vllm or mock.")
    model: str = setting(
        "INDIGO_MODEL",
        "auto",
        "demo, none, a GGUF file, hf:owner/repo[:file]; auto picks a small instruct model.",
    )
    embedding_model: str = setting(
        "INDIGO_EMBEDDING_MODEL",
        "auto",
        "As --model, for embeddings; auto means the demo's with the demo, else none.",
    )
    context_length: int = setting("INDIGO_CONTEXT_LENGTH", 0, "Tokens of context; 0 takes the model's, 8192 at most.")
    parallel: int = setting("INDIGO_PARALLEL", 4, "Requests that the embedded engine answers at the same time.")
    threads: int = setting("INDIGO_THREADS", 0, "Threads of the embedded engine; 0 lets it choose.")
    gpu_layers: int = setting(
        "INDIGO_GPU_LAYERS", -1, "Layers the embedded engine puts on a GPU; -1 is as many as fit."
    )
    hf_token: str = setting("HF_TOKEN", "", "Token for gated models on the hub.", secret=True)
    vllm_command: str = setting("INDIGO_VLLM_COMMAND", "vllm", "The vLLM executable.")
    vllm_profile: str = setting("INDIGO_VLLM_PROFILE", "gpu", "gpu or cpu.")
    vllm_port: int = setting("INDIGO_VLLM_PORT", 0, "Loopback port of vLLM; 0 takes a free one.")
    vllm_served_name: str = setting("VLLM_SERVED_NAME", "", "Name the vLLM model is offered under; its own if unset.")
    vllm_max_model_len: int = setting("INDIGO_VLLM_MAX_MODEL_LEN", 0, "Passed as --max-model-len; 0 leaves it out.")
    vllm_gpu_memory_utilization: float = setting(
        "INDIGO_VLLM_GPU_MEMORY_UTILIZATION", 0.9, "Share of GPU memory vLLM may take, over 0 and up to 1."
    )
    vllm_quantization: str = setting("INDIGO_VLLM_QUANTIZATION", "", "awq, for example; vLLM finds out if unset.")
    vllm_tool_parser: str = setting(
        "INDIGO_VLLM_TOOL_PARSER", "hermes", "vLLM's tool-call parser; empty turns tools off."
    )
    vllm_extra_args: str = setting("INDIGO_VLLM_EXTRA_ARGS", "", "More arguments for vLLM, as in a shell.")
    vllm_internal_key: str = setting(
        "VLLM_INTERNAL_KEY", "", "Key between Indigo and vLLM; made up at each start if unset.", secret=True
    )
    providers_file: str = setting(
        "INDIGO_PROVIDERS",
        "",
        "The providers.yaml to read, and to follow while running.",
        "JAN_PROVIDER_CONFIGS_FILE",
    )
    inference_url: str = setting(
        "JAN_INFERENCE_MODEL_URL",
        "",
        "An OpenAI-compatible server whose models are offered under their own names.",
    )
    probe_seconds: float = setting("INDIGO_PROBE_SECONDS", 10.0, "Seconds between health probes of an endpoint.")

    max_body_bytes: int = setting("INDIGO_MAX_BODY_BYTES", 20 * 1024 * 1024, "Largest request body; more is a 413.")
    max_requests: int = setting("INDIGO_MAX_REQUESTS", 20_000, "Requests in flight per process; more is a 503.")
    header_seconds: float = setting("INDIGO_HEADER_SECONDS", 15.0, "Seconds a client has to send its headers.")
    body_seconds: float = setting("INDIGO_BODY_SECONDS", 60.0, "Seconds a client has to send its body.")
    keep_alive_seconds: float = setting("INDIGO_KEEP_ALIVE_SECONDS", 75.0, "Seconds an idle connection is kept.")
    stalled_client_seconds: float = setting(
        "INDIGO_STALLED_CLIENT_SECONDS",
        120.0,
        "Seconds a client may stop reading its answer before it is cut off.",
    )
    drain_seconds: float = setting("INDIGO_DRAIN_SECONDS", 30.0, "Seconds that running streams get at shutdown.")
    connect_seconds: float = setting("INDIGO_CONNECT_SECONDS", 5.0, "Seconds to connect to a model endpoint.")
    first_byte_seconds: float = setting(
        "INDIGO_FIRST_BYTE_SECONDS", 600.0, "Seconds to the first byte of an answer, over all attempts."
    )
    idle_seconds: float = setting("INDIGO_IDLE_SECONDS", 120.0, "Seconds a running answer may stand still.")
    max_upstream_connections: int = setting(
        "INDIGO_MAX_UPSTREAM_CONNECTIONS", 20_000, "Connections to one model endpoint, per process."
    )
    grant_seconds: float = setting("INDIGO_GRANT_SECONDS", 10.0, "Seconds a key's rights are remembered, at the most.")
    spool_max_bytes: int = setting("INDIGO_SPOOL_MAX_BYTES", 1024**3, "Most the usage spool may take on disk.")


def fields() -> tuple[dataclasses.Field[Any], ...]:
    """The settings in order, for the documentation and the command line."""
    return dataclasses.fields(Settings)


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (of the command line) win where they are not None.

    Raises InvalidRequest naming the variable and what it should be.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for field in fields():
        given = overrides.pop(field.name, None)
        if given is not None:
            values[field.name] = type(field.default)(given)
            continue
        for name in (field.metadata["env"], *field.metadata["aliases"]):
            if environ.get(name):
                values[field.name] = _parse(name, environ[name], field.default)
                break
    if overrides:
        raise TypeError(f"no such settings: {sorted(overrides)}")
    return Settings(**values)


def _parse(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError):
        wanted = "true or false" if isinstance(default, bool) else f"a value like {default!r}"
        raise InvalidRequest(f"{name}={text!r} should be {wanted}.", code="invalid_setting") from None
