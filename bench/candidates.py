"""What is measured: each starts what it needs and says its port, model, key and process."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from bench import programs
from bench.programs import GATEWAY_CORE, LOAD_CORE

PORTS = {"json": 9301, "stream": 9302, "hold": 9303}
"""Upstreams: one answers at once, one streams 100 chunks 10 ms apart, one a chunk a second."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`ports` by kind of load; `pid` 0 where nothing stands in between."""

    name: str
    pid: int
    ports: dict[str, int]
    models: dict[str, str]
    key: str = "none"


@contextlib.contextmanager
def upstreams(folder: Path) -> Generator[None]:
    shapes = {"json": ("1", "0"), "stream": ("100", "10"), "hold": ("600", "1000")}
    with contextlib.ExitStack() as stack:
        for kind, shape in shapes.items():
            command = [folder / "upstream", str(PORTS[kind]), *shape]
            log = folder / f"upstream-{kind}.log"
            process = stack.enter_context(programs.running(command, core=LOAD_CORE, log=log))
            programs.wait_for(f"http://127.0.0.1:{PORTS[kind]}/", process, log)
        yield


def direct() -> Candidate:
    return Candidate("direct", 0, dict(PORTS), dict.fromkeys(PORTS, "bench"))


@contextlib.contextmanager
def nginx(folder: Path) -> Generator[Candidate]:
    """Debian's nginx as the limit: it proxies, and neither authenticates nor reads nor counts."""
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is missing: apt-get install nginx")
    ports = {"json": 9311, "stream": 9312, "hold": 9313}
    servers = "".join(
        f"upstream {kind} {{ server 127.0.0.1:{PORTS[kind]}; keepalive 256; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{ports[kind]}; location / {{ proxy_pass http://{kind}; proxy_http_version 1.1; "
        f'proxy_set_header Connection ""; proxy_buffering off; }} }}\n'
        for kind in PORTS
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n"
        "events { worker_connections 40000; }\nworker_rlimit_nofile 60000;\n"
        f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/body;\n{servers}}}\n"
    )
    log = folder / "nginx.log"
    with programs.running(["nginx", "-c", str(config)], core=GATEWAY_CORE, log=log) as process:
        programs.wait_for(f"http://127.0.0.1:{ports['json']}/", process, log)
        worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        yield Candidate("nginx", worker, ports, dict.fromkeys(PORTS, "bench"))


@contextlib.contextmanager
def indigo(folder: Path, python: str, port: int = 9321) -> Generator[Candidate]:
    """The product by its own command, with everything on."""
    providers = folder / "providers.yaml"
    lines = "".join(
        f"  - name: {kind}\n    base_url: http://127.0.0.1:{PORTS[kind]}\n"
        f"    models: [{{id: bench-{kind}, served_name: {'bench-json' if kind == 'json' else 'bench'}}}]\n"
        for kind in PORTS
    )
    providers.write_text(f"providers:\n{lines}")
    log = folder / "indigo.log"
    command = [python, "-m", "indigo", "serve", "--model", "none", "--providers", str(providers)]
    command += ["--port", str(port), "--data-dir", str(folder / "data"), "--log-level", "warning"]
    with programs.running(command, core=GATEWAY_CORE, log=log, environ={"INDIGO_PROBE_SECONDS": "600"}) as process:
        programs.wait_for(f"http://127.0.0.1:{port}/readyz", process, log)
        time.sleep(1.0)  # what is printed once comes after the server listens
        found = re.search(r"sk-proj-[0-9A-Za-z]+", log.read_text())
        if found is None:
            raise RuntimeError(f"no key was printed:\n{log.read_text()[-2000:]}")
        models = {kind: f"bench-{kind}" for kind in PORTS}
        yield Candidate("indigo", process.pid, dict.fromkeys(PORTS, port), models, found[0])


@contextlib.contextmanager
def litellm(folder: Path, home: Path, interpreter: str, port: int = 9331) -> Generator[Candidate]:
    """LiteLLM's proxy in a virtual environment of its own, with one key, no database, logging off."""
    python = _litellm_environment(home, interpreter)
    models = [
        {
            "model_name": f"bench-{kind}",
            "litellm_params": {
                "model": "openai/bench",
                "api_base": f"http://127.0.0.1:{PORTS[kind]}/v1",
                "api_key": "none",
            },
        }
        for kind in PORTS
    ]
    config = folder / "litellm.json"
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": "sk-bench"}}))
    log = folder / "litellm.log"
    command = [python.parent / "litellm", "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environ = {"LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with programs.running(command, core=GATEWAY_CORE, log=log, environ=environ) as process:
        programs.wait_for(f"http://127.0.0.1:{port}/health/liveliness", process, log, 120)
        yield Candidate(
            "litellm", process.pid, dict.fromkeys(PORTS, port), {k: f"bench-{k}" for k in PORTS}, "sk-bench"
        )


def _litellm_environment(home: Path, interpreter: str) -> Path:
    python = home / "bin" / "python"
    if not (home / "bin" / "litellm").exists():
        print(f"Setting LiteLLM up in {home} …", file=sys.stderr)
        subprocess.run([interpreter, "-m", "venv", "--clear", home], check=True)
        lock = Path(__file__).parent / "requirements-litellm.lock"
        command = [python, "-m", "pip", "install", "-q", "--require-hashes", "-r", lock]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit("LiteLLM could not be installed.")
    return python
