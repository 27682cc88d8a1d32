"""Fetches a model file from the Hugging Face hub: `hf:owner/repo[:file]`.

The hub's own library does the work (progress bar, resuming, cache); here is what it leaves out: which file to
take, a check of the bytes against the hub's SHA-256, and one sentence for each way it can fail.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indigo.engines.hub import Hub

DEFAULT = "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q4_k_m.gguf"
"""Apache-2.0, 0.5 billion parameters, about 470 MiB; calls tools."""
PREFERRED = ("q4_k_m", "q4_k_s", "q5_k_m", "q4_0", "iq4_xs", "q8_0", "f16", "bf16")


class DownloadFailed(Exception):
    """The message is one sentence. `unreachable` where it is the hub that does not answer."""

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class Reference:
    repo: str
    file: str | None


def parse(text: str) -> Reference:
    """Raises ValueError for what is not `hf:owner/repo[:file]`."""
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?::([\w./-]+))?", text)
    if match is None or ".." in text:
        raise ValueError(f"{text!r} is not hf:owner/repo or hf:owner/repo:file.gguf.")
    return Reference(match[1], match[2])


def choose(files: list[str]) -> str | None:
    """The GGUF to take of several, the usual compromise of size and quality first; None if there is none."""
    found = [name for name in files if name.lower().endswith(".gguf") and "mmproj" not in name.lower()]
    whole = sorted(name for name in found if not re.search(r"-\d{5}-of-\d{5}\.gguf$", name))
    for quantisation in PREFERRED:
        for name in whole:
            if re.search(rf"(?<![a-z0-9]){quantisation}(?![a-z0-9_])", name.lower()):
                return name
    return whole[0] if whole else None


def fetch(reference: Reference, folder: Path, token: str = "", endpoint: str | None = None) -> Path:
    """The file's path under `folder`, downloaded unless it is there. Blocks; shows a progress bar.

    Raises DownloadFailed.
    """
    # The hub's library takes 0.3 s to import, which a start that needs no download should not pay.
    from indigo.engines import hub

    return _fetch(hub.Hub(endpoint, token), reference, folder)


def _fetch(opened: Hub, reference: Reference, folder: Path) -> Path:
    if reference.file is not None:
        known = folder / reference.repo / reference.file
        if known.is_file() and _mark(known).is_file():
            return known  # whole and verified: the hub need not be asked
    file = reference.file or choose(opened.files(reference.repo))
    if file is None:
        raise DownloadFailed(f"{reference.repo} has no GGUF file; take a repository whose name ends in -GGUF.")
    expected = opened.checksum(reference.repo, file)
    path = opened.download(reference.repo, file, folder / reference.repo)
    if not (_mark(path).is_file() and _mark(path).read_text() == (expected or "")):
        if expected is not None and _sha256(path) != expected:
            path.unlink()
            raise DownloadFailed(f"{file} of {reference.repo} arrived damaged: its checksum is wrong. It was removed.")
        _mark(path).write_text(expected or "")
    return path


def _mark(path: Path) -> Path:
    """Holds the checksum that the file beside it was found to have."""
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
