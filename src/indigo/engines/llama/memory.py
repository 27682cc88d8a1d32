"""How much memory a model may take on this machine, in this container."""

from __future__ import annotations

from pathlib import Path

from indigo.engines.llama.model_file import Unusable

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Bytes to be had without swapping: what the kernel estimates, or the container's limit leaves.

    None where the system does not say.
    """
    found = [amount for amount in (_of_machine(meminfo), _of_container(cgroup)) if amount is not None]
    return min(found, default=None)


def require(path: Path, needed: int, free: int | None) -> None:
    """Raises Unusable where `needed` bytes are more than are `free`."""
    if free is not None and needed > free:
        raise Unusable(
            f"There is too little memory for the model {path}: it needs about {_mebibytes(needed)} MiB and "
            f"{_mebibytes(free)} MiB are free. "
            "Take a smaller model, or lower INDIGO_CONTEXT_LENGTH or INDIGO_PARALLEL."
        )


def _of_machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _of_container(cgroup: Path) -> int | None:
    """The limit of control group version 2, less what is used of it and cannot be given back."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return int(limit) - used + int(stat.get("inactive_file", 0))


def _mebibytes(amount: int) -> int:
    return max(0, amount) // (1024 * 1024)
