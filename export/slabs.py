"""Tensors of a checkpoint, read lazily: where each one lies is read at once, its numbers when they are asked for.

No more than a few MiB of numbers are in memory at any time.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from parrot_runtime.errors import InputError
from parrot_train.shards import AGAIN, INDEX_NAME, weight_files
from parrot_train.zero import Partitioned, read_zero_checkpoint

if TYPE_CHECKING:
    from parrot_train.stored import Numbers

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Larger ones are fresh memory from the system every time: to copy 1 GiB takes 0.8 s of a processor in pieces of 8 MiB,
# 0.3 in these (an AMD EPYC, glibc).
CHUNK_BYTES = 4 << 20
_MAX_HEADER_BYTES = 100 << 20  # the format's own limit


@dataclass(frozen=True)
class Slab:
    """A run of numbers in a safetensors file: bytes ``start`` to ``start + length`` of ``file``."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def elements(self) -> int:
        """How many numbers the slab holds."""
        return math.prod(self.shape)

    def read(self, first: int, count: int) -> np.ndarray:
        """``count`` numbers from the ``first`` on, flat, in the stored type. Raises InputError for a cut file."""
        size = count * self.dtype.itemsize
        with open(self.file, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, self.start + first * self.dtype.itemsize)
        if len(data) != size:
            raise InputError(f"{self.file}: the file ends before its tensors do; {AGAIN}")
        return np.frombuffer(data, self.dtype)


@dataclass(frozen=True)
class MadeSlab:
    """A tensor that no file has in one piece, read as a ``Slab``: of a DeepSpeed checkpoint, spread over the files of
    its ranks, or of one with adapters, which are added as it is read."""

    dtype: np.dtype
    shape: tuple[int, ...]
    tensor: "Partitioned | Numbers"

    @property
    def elements(self) -> int:
        """How many numbers the slab holds."""
        return math.prod(self.shape)

    def read(self, first: int, count: int) -> np.ndarray:
        """``count`` numbers from the ``first`` on, flat, in the stored type."""
        import torch

        numbers = self.tensor.read(first, count)
        if numbers.dtype == torch.bfloat16:  # numpy has none of its own
            return numbers.view(torch.int16).numpy().view(self.dtype)
        return numbers.numpy()


@dataclass(frozen=True)
class StoredTensor:
    """One tensor: a single slab, or several of equal shape stacked along a new first axis (one per expert)."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    slabs: tuple[Slab | MadeSlab, ...]

    def chunks(self) -> Iterator[np.ndarray]:
        """All numbers in order, flat, in pieces of at most ``CHUNK_BYTES``."""
        step = CHUNK_BYTES // self.dtype.itemsize
        for slab in self.slabs:
            for first in range(0, slab.elements, step):
                yield slab.read(first, min(step, slab.elements - first))

    def row_chunks(self) -> Iterator[np.ndarray]:
        """All numbers in order, as whole rows of the last axis: ``[rows, K]`` of at most ``CHUNK_BYTES`` or one row."""
        width = self.shape[-1]
        step = max(1, CHUNK_BYTES // (width * self.dtype.itemsize)) * width
        for slab in self.slabs:
            for first in range(0, slab.elements, step):
                yield slab.read(first, min(step, slab.elements - first)).reshape(-1, width)

    def column_chunks(self) -> Iterator[np.ndarray]:
        """The numbers of ``[E, C, I]`` in the order of ``[C, E·I]``: E products side by side in one."""
        count, rows, columns = self.shape
        # A stacked tensor is one slab per expert; a tensor saved whole is one slab for all of them.
        places = [(slab, 0) for slab in self.slabs] if len(self.slabs) > 1 else None
        places = places or [(self.slabs[0], expert * rows * columns) for expert in range(count)]
        step = max(1, CHUNK_BYTES // (count * columns * self.dtype.itemsize))
        for row in range(0, rows, step):
            height = min(step, rows - row)
            parts = [
                slab.read(first + row * columns, height * columns).reshape(height, columns) for slab, first in places
            ]
            yield np.stack(parts, axis=1).reshape(-1)

    def load(self) -> np.ndarray:
        """The whole tensor as float32: for the few small ones an export computes with."""
        return np.concatenate([chunk.astype(np.float32) for chunk in self.chunks()]).reshape(self.shape)


def read_slabs(folder: Path) -> Iterator[tuple[str, Slab]]:
    """Name and place of every tensor in ``folder``'s safetensors files, sharded or not. Raises InputError."""
    for file, promised in weight_files(folder).items():
        slabs = _file_slabs(file)
        for name in slabs if promised is None else promised:
            if name not in slabs:
                raise InputError(f"{file}: {name} is missing, which {INDEX_NAME} promises; {AGAIN}")
            yield name, slabs[name]


def read_zero_slabs(folder: Path) -> Iterator[tuple[str, MadeSlab]]:
    """Name and place of every tensor of the DeepSpeed checkpoint in ``folder``. Raises InputError."""
    for name, tensor in read_zero_checkpoint(folder).items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in map(str, DTYPES.values()):
            raise InputError(f"{folder}: {name} is {dtype}; expected one of {', '.join(map(str, DTYPES.values()))}")
        yield name, MadeSlab(np.dtype(dtype), tensor.shape, tensor)


def read_merged_slabs(folder: Path) -> Iterator[tuple[str, MadeSlab]]:
    """Name and place of every tensor of the checkpoint of adapters in ``folder``, merged. Raises InputError."""
    from parrot_train.lora import read_lora_checkpoint

    for name, tensor in read_lora_checkpoint(folder).items():
        yield name, MadeSlab(np.dtype(np.float32), tensor.shape, tensor)


def _file_slabs(path: Path) -> dict[str, Slab]:
    """The header of one safetensors file: eight bytes of length, then JSON, then the numbers."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError("its header is cut or is none")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is not a JSON object")
        return {
            name: _slab(path, name, entry, 8 + length, size) for name, entry in header.items() if name != "__metadata__"
        }
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a sound safetensors file ({error}); {AGAIN}") from error


def _slab(path: Path, name: str, entry: dict[str, Any], base: int, size: int) -> Slab:
    (first, last), shape = entry["data_offsets"], tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (first, last, *shape)):
        raise ValueError(f"{name}: sizes and offsets must be whole numbers")
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} is {entry['dtype']}; expected one of {', '.join(DTYPES)}")
    dtype = DTYPES[entry["dtype"]]
    if last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: {last - first} bytes for {list(shape)} of {entry['dtype']}")
    if base + last > size:
        raise ValueError(f"{name} lies beyond the end of the file, which was cut")
    return Slab(path, dtype, shape, base + first)
