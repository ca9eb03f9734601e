"""Whether a build fits into this machine's memory, looked at before it starts.

Nothing is worse than a build that is killed after half an hour. Weights are read through the file cache, which gives
way; what does not is the builder's own copy. Measured with TensorRT-RTX 1.7 on twelve fp16 products of 4096 × 4096
(384 MiB): 625 MiB beside the file cache when the engine is streamed to disk, 881 MiB when it is handed over whole; half
the weights took 193 MiB less. So one copy and a fixed part are used in the first case and not quite two in the second.
One more is asked for, since folding a quantised or converted weight makes another.
"""

from pathlib import Path

from parrot_runtime.errors import ParrotError

_FIXED_BYTES = 512 << 20
_PROC, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def require_memory(weight_bytes: int, *, streams: bool, graph: str) -> None:
    """Raises ParrotError when building a graph with so many bytes of weights needs more memory than there is.

    ``streams`` says that the engine goes to disk as it is made. Where the system does not tell its memory (it is not
    Linux), nothing can be said beforehand, and nothing is.
    """
    needed = (2 if streams else 3) * weight_bytes + _FIXED_BYTES
    free = available_memory()
    if free is not None and needed > free:
        raise ParrotError(
            f"{graph}: building its engine takes about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are "
            "free; close other programs, add swap, export in a smaller precision, or build on a larger machine"
        )


def available_memory(meminfo: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Bytes a process can still have: memory and swap, within a container's limit; None where nothing says so."""
    if not meminfo.is_file():
        return None
    lines = (line.split() for line in meminfo.read_text().splitlines())
    sizes = {line[0].rstrip(":"): int(line[1]) << 10 for line in lines if len(line) > 1}
    free = sizes["MemAvailable"] + sizes.get("SwapFree", 0)
    limit = cgroup / "memory.max"
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        used = int((cgroup / "memory.current").read_text()) - int(stat["inactive_file"])
        free = min(free, int(most) - used)
    return max(free, 0)
