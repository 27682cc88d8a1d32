"""What the engine's child process is told, as one line of JSON on its standard input."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["chat", "embedding", "rerank"]
HOPELESS = 78
"""Exit status for a failure that a restart cannot mend (sysexits.h: EX_CONFIG); the last line says why."""


class ChildConfig(msgspec.Struct, frozen=True):
    """`demo` writes the demonstration model to `path` first, if it is not there. 0 lets the engine choose."""

    path: str
    socket: str
    alias: str
    kind: Kind
    parent: int
    demo: bool = False
    context_length: int = 0
    parallel: int = 4
    threads: int = 0
    gpu_layers: int = -1
