"""A llama.cpp child as the supervisor sees it: its command, its address, and what its end means."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import msgspec

from indigo.engines.llama.config import HOPELESS, ChildConfig
from indigo.engines.supervisor import Child, Failure

FINAL = (
    ("unknown model architecture", "The engine does not know this model's architecture"),
    ("unknown pre-tokenizer", "The engine does not know this model's tokenizer"),
    ("not within the file bounds", "The model file is truncated; download it again"),
    ("model is corrupted", "The model file is damaged; download it again"),
    ("invalid ggml type", "The engine does not know this model's quantisation"),
    ("missing tensor", "The model file is incomplete"),
    ("unable to allocate", "There is too little memory for the model"),
    ("failed to allocate", "There is too little memory for the model"),
    ("out of memory", "There is too little memory for the model"),
)
"""What the engine writes when another try would end the same way, and what that means."""


def child(config: ChildConfig) -> Child:
    return Child(
        name=config.alias,
        command=(sys.executable, "-m", "indigo.engines.llama.child"),
        base_url=f"unix:{config.socket}",
        explain=explain,
        stdin=msgspec.json.encode(config) + b"\n",
    )


def explain(status: int, lines: Sequence[str]) -> Failure:
    """The cause of a child's end, from its exit status and the last lines it wrote."""
    last = next((line for line in reversed(lines) if line), "")
    if status == HOPELESS:
        return Failure(last, final=True)
    for line in reversed(lines):
        for mark, meaning in FINAL:
            if mark in line:
                return Failure(f"{meaning} ({_message(line)}).", final=True)
    if status < 0:
        return Failure(f"It was ended by {signal.Signals(-status).name}.")
    return Failure(f"It ended with status {status}{': ' + _message(last) if last else ''}.")


def _message(line: str) -> str:
    """The engine's line without its time, level and origin."""
    return line.split(": ", 1)[-1].rstrip(".")
