"""What the stages of an answer reached, beside what this machine can do at most.

A step reads all of the decoder's weights and the keys and values of every position so far: its bound is reading memory.
Pictures and prompts multiply many rows by the same weights: their bound is arithmetic.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parrot_runtime.errors import InputError
from parrot_runtime.machine import state_folder
from parrot_runtime.manifest import PREFILL, Graph, Manifest
from parrot_runtime.publish import write_file
from parrot_runtime.stats import Stats
from parrot_runtime.strict import from_mapping, parse_json

GB_PER_SECOND, GFLOP_PER_SECOND = "GB/s", "GFLOP/s"


@dataclass(frozen=True)
class Limits:
    """What ``threads`` reach together, as ``parrot-bench machine`` finds it.

    ``read`` in GB/s, ``fp32`` and ``int8`` products of many rows in GFLOP/s, and ``int4_row``, a product of one row on
    4-bit weights, in GB/s of weights read.
    """

    threads: int
    read: float
    fp32: float
    int8: float
    int4_row: float


@dataclass(frozen=True)
class Rate:
    """``value`` in ``unit``; ``limit`` is the machine's, None where nobody has measured it."""

    value: float
    unit: str
    limit: float | None

    def __str__(self) -> str:
        beside = "" if self.limit is None else f" of {_digits(self.limit)}"
        return f"{_digits(self.value)}{beside} {self.unit}"

    def as_dict(self) -> dict[str, float | str | None]:
        """For JSON."""
        return dataclasses.asdict(self) | {"value": round(self.value, 3)}


def rates(stats: Stats, manifest: Manifest, limits: Limits | None) -> dict[str, Rate]:
    """By stage (image, prefill, decode) what onnxruntime's graphs of ``manifest`` reached on the CPU.

    Products with weights alone are counted, and their time is the whole stage's: reading a picture's file and attention
    make it a lower bound. Stages that did not run, and graphs that do not say what they read, are left out.
    """
    fresh = stats.image_tokens * (1 - stats.cached_images / max(1, stats.image_tokens // manifest.model.image_tokens))
    prompt = manifest.graphs.get(PREFILL, manifest.graphs["decoder"])
    products = (
        None if limits is None else limits.int8 if manifest.precision in ("int8", "int4", "mixed") else limits.fp32
    )
    work = {
        "image": (2 * manifest.graphs["encoder"].multiply_adds * fresh, GFLOP_PER_SECOND, products),
        "prefill": (2 * prompt.multiply_adds * (stats.prompt_tokens - stats.kept_tokens), GFLOP_PER_SECOND, products),
        "decode": (_read_by_steps(stats, manifest), GB_PER_SECOND, None if limits is None else limits.read),
    }
    return {
        stage: Rate(amount / stats.seconds[stage] / 1e9, unit, limit)
        for stage, (amount, unit, limit) in work.items()
        if amount and stats.seconds[stage]
    }


def _read_by_steps(stats: Stats, manifest: Manifest) -> float:
    """Bytes: the decoder's weights at every step, and what the cache held at it."""
    decoder: Graph = manifest.graphs["decoder"]
    if not decoder.weight_bytes:
        return 0
    dims = manifest.model
    position = 2 * dims.layers * dims.kv_heads * dims.head_dim * np.dtype(manifest.kv_dtype).itemsize
    held = stats.prompt_tokens + stats.decoded_tokens / 2
    return stats.decode_steps * (decoder.weight_bytes + held * position)


def keep_limits(limits: Limits) -> None:
    """Remember them for the next answers. Raises OSError."""
    path = _limits_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_file(path, json.dumps(dataclasses.asdict(limits)).encode())


def kept_limits() -> Limits | None:
    """What was remembered; None where nothing was, or where it cannot be read."""
    try:
        path = _limits_file()
        return from_mapping(Limits, parse_json(path.read_bytes()), where=str(path))
    except (OSError, ValueError, RecursionError, InputError):
        return None


def _limits_file() -> Path:
    return state_folder() / "machine.json"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
