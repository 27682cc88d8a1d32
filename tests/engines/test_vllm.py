"""vLLM's command line, and its supervision, against an executable that speaks its API."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from indigo.engines import vllm
from indigo.kernel.errors import InvalidRequest
from indigo.kernel.settings import Settings
from tests.engines.llama_client import ask, supervised, until

STANDIN = f"{sys.executable} {Path(__file__).with_name('standin_vllm.py')}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(**settings: Any) -> vllm.Launch:
    given: dict[str, Any] = {"engine": "vllm", "model": "hf:owner/model", "vllm_command": STANDIN, **settings}
    return vllm.build(Settings(**given), free_port(), "internal-key")


async def arguments(made: vllm.Launch) -> tuple[list[str], dict[str, str]]:
    async with supervised(made.child) as supervisor:
        await until(supervisor, lambda state: state.state == "ready")
        _, body = await ask(made.child.base_url, "/arguments")
        return body["argv"], body["environ"]


async def test_every_setting_reaches_the_command_line() -> None:
    argv, environ = await arguments(
        launch(
            vllm_served_name="my-model",
            vllm_max_model_len=4096,
            vllm_gpu_memory_utilization=0.5,
            vllm_quantization="awq",
            vllm_extra_args="--dtype 'float16'",
            hf_token="hf_1",
        )
    )
    text = " ".join(argv)
    assert text.startswith("serve owner/model --host 127.0.0.1 --port ")
    assert "--served-model-name my-model" in text
    assert "--max-model-len 4096 --gpu-memory-utilization 0.5 --quantization awq" in text
    assert "--enable-auto-tool-choice --tool-call-parser hermes --dtype float16" in text
    assert environ == {"VLLM_API_KEY": "internal-key", "HF_TOKEN": "hf_1"}
    assert "internal-key" not in text


async def test_on_a_cpu_nothing_of_a_gpu_is_asked_for() -> None:
    argv, _ = await arguments(launch(vllm_profile="cpu", vllm_tool_parser=""))
    assert "--gpu-memory-utilization" not in argv
    assert "--enable-auto-tool-choice" not in argv
    assert "--enforce-eager" in argv


@pytest.mark.parametrize("settings", [{"model": "auto"}, {"vllm_profile": "tpu"}, {"vllm_gpu_memory_utilization": 1.5}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="INDIGO_"):
        launch(**settings)


async def test_a_killed_vllm_is_started_again() -> None:
    made = launch()
    async with supervised(made.child) as supervisor:
        first = await until(supervisor, lambda state: state.state == "ready")
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(supervisor, lambda state: state.state == "ready" and state.restarts == 1)


async def test_too_little_memory_is_reported_once_with_its_cause() -> None:
    async with supervised(launch(model="too/large").child) as supervisor:
        state = await supervisor.settled()
        assert state.state == "failed"
        assert state.reason == ("vLLM cannot serve the model: ValueError: No available memory for the cache blocks.")


async def test_another_crash_is_tried_again_with_growing_pauses() -> None:
    async with supervised(launch(model="crash/once").child) as supervisor:
        state = await until(supervisor, lambda state: state.restarts >= 2)
        assert "a passing trouble" in state.reason


async def test_a_command_that_does_not_exist_is_named() -> None:
    async with supervised(launch(vllm_command="/nowhere/vllm").child) as supervisor:
        state = await supervisor.settled()
        assert state.state == "failed"
        assert "/nowhere/vllm" in state.reason
        assert "INDIGO_VLLM_COMMAND" in state.reason
