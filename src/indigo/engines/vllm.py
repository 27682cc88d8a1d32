"""Builds the `vllm serve` command and says what its end means. Running it is the supervisor's."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from indigo.engines.supervisor import Child, Failure
from indigo.kernel.errors import InvalidRequest
from indigo.kernel.settings import Settings

FINAL = (
    "No available memory for the cache blocks",
    "CUDA out of memory",
    "torch.OutOfMemoryError",
    "is larger than the maximum number of tokens that can be stored in KV cache",
    "Free memory on device",
    "is not a valid model identifier",
    "is not a local folder",
    "Cannot access gated repo",
    "are not supported for now",
    "Failed to infer device type",
    "Unknown quantization method",
    "unrecognized arguments",
    "invalid choice",
    "No module named",
)
"""What vLLM writes when another try would end the same way."""


@dataclass(frozen=True, slots=True)
class Launch:
    child: Child
    served_name: str


def build(settings: Settings, port: int, key: str) -> Launch:
    """The child that serves `settings.model` on loopback. Raises InvalidRequest for senseless settings."""
    model = settings.model.removeprefix("hf:")
    if settings.model in ("auto", "demo", "none"):
        raise InvalidRequest(
            f"The vllm engine needs a model, not {settings.model!r}: set INDIGO_MODEL to a folder or hf:owner/repo.",
            code="invalid_setting",
        )
    name = settings.vllm_served_name or model
    command = [
        *shlex.split(settings.vllm_command),
        "serve",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--served-model-name", name, *_options(settings), *shlex.split(settings.vllm_extra_args)]
    tether = (sys.executable, "-m", "indigo.engines.tether", str(os.getpid()), str(int(signal.SIGTERM)))
    environ = {
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
    }  # a key in the arguments would be in every `ps`
    if settings.hf_token:
        environ["HF_TOKEN"] = settings.hf_token
    child = Child(
        name=f"vllm {name}",
        command=(*tether, *command),
        base_url=f"http://127.0.0.1:{port}",
        explain=explain,
        environ=environ,
    )
    return Launch(child, name)


def _options(settings: Settings) -> list[str]:
    options: list[str] = []
    length = settings.vllm_max_model_len or settings.context_length
    if length:
        options += ["--max-model-len", str(length)]
    if settings.vllm_profile == "gpu":
        share = settings.vllm_gpu_memory_utilization
        if not 0 < share <= 1:
            raise InvalidRequest(
                f"INDIGO_VLLM_GPU_MEMORY_UTILIZATION={share} should be over 0 and up to 1.",
                code="invalid_setting",
            )
        options += ["--gpu-memory-utilization", str(share)]
    elif settings.vllm_profile == "cpu":
        # The CPU build has no compiled graphs worth their start, and no half precision on many machines.
        options += ["--dtype", "bfloat16", "--enforce-eager"]
    else:
        raise InvalidRequest(
            f"INDIGO_VLLM_PROFILE={settings.vllm_profile!r} should be gpu or cpu.", code="invalid_setting"
        )
    if settings.vllm_quantization:
        options += ["--quantization", settings.vllm_quantization]
    if settings.vllm_tool_parser:
        options += ["--enable-auto-tool-choice", "--tool-call-parser", settings.vllm_tool_parser]
    return options


def explain(status: int, lines: Sequence[str]) -> Failure:
    """The cause of vLLM's end: the first line that names one, else its last error."""
    for line in lines:
        if any(mark in line for mark in FINAL):
            return Failure(f"vLLM cannot serve the model: {_message(line)}", final=True)
    if status < 0:
        return Failure(f"vLLM was ended by {signal.Signals(-status).name}.")
    if status == 1 and lines and lines[-1].endswith("No such file or directory"):
        return Failure(f"{lines[-1]}: set INDIGO_VLLM_COMMAND to the vllm executable.", final=True)
    last = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "")
    return Failure(f"vLLM ended with status {status}: {_message(last)}")


def _message(line: str) -> str:
    """A log line without its process, level, time and source file."""
    return line.rsplit("] ", 1)[-1].strip()
