"""The engine's own process: `python -m indigo.engines.llama.child`, told what to do on standard input.

Native code may crash here without harm to the server, which starts it again. No other module imports it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from indigo.engines import tether
from indigo.engines.llama import memory, model_file
from indigo.engines.llama.config import HOPELESS, ChildConfig
from indigo.engines.llama.native import native

MOST_CONTEXT = 8192
HTTP_THREADS = 256
"""Each running request occupies one, and the health check needs one more."""


def main() -> None:
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildConfig)
    tether.die_with(config.parent)
    try:
        header = _prepare(config)
        params = parameters(config, header)
        _require_memory(config, header, params.n_ctx)
    except model_file.Unusable as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the parent reads it
        os._exit(HOPELESS)
    server = native.Server(params)
    print(f"listening on {server.listening_address}", file=sys.stderr, flush=True)  # noqa: T201 - as above
    while True:
        signal.pause()


def _prepare(config: ChildConfig) -> model_file.Header:
    """The model's header; a demonstration model is written first."""
    path = Path(config.path)
    if config.demo and not path.exists():
        # Half a second of imports (numpy, gguf) that only the very first start needs.
        from indigo.engines.demo import model as demo

        (demo.write_chat if config.kind == "chat" else demo.write_embedding)(path)
    return model_file.read(path)


def parameters(config: ChildConfig, header: model_file.Header) -> Any:
    params = native.CommonParams()
    params.model.path = config.path
    params.model_alias = {config.alias}
    params.hostnames = [config.socket]
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 1
    params.n_threads_http = HTTP_THREADS
    params.n_parallel = config.parallel
    context = config.context_length or min(header.context_length or MOST_CONTEXT, MOST_CONTEXT)
    params.n_ctx = context * config.parallel  # the engine divides it among the requests it runs together
    params.n_gpu_layers = config.gpu_layers
    if config.threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    if config.demo:
        params.warmup = params.fit_params = False
    if config.kind != "chat":
        params.embedding = True
        # With a cache divided among requests, inputs of one batch are pooled into each other (in xllamacpp
        # 2026.10: cosine 0.46 between one text embedded alone and in a batch of six).
        params.kv_unified = True
        # All of an input has to be in one batch (llama.cpp: "input is too large to process").
        params.n_batch = params.n_ubatch = min(context, MOST_CONTEXT)
    if config.kind == "rerank":
        params.pooling_type = native.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    elif config.kind == "embedding" and not header.pooling:
        params.pooling_type = native.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def _require_memory(config: ChildConfig, header: model_file.Header, context: int) -> None:
    devices: list[dict[str, Any]] = native.get_device_info()
    gpu = native.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU
    if config.gpu_layers != 0 and any(device["type"] == gpu for device in devices):
        return  # weights go there, as many as fit
    memory.require(Path(config.path), header.memory(context), memory.available())


if __name__ == "__main__":
    main()
