"""The word embeddings of a bundle, memory-mapped: a lookup touches only the rows it needs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from parrot_runtime.errors import BundleError

TENSOR_NAME = "embed_tokens.weight"
# bfloat16 is not a numpy type: its bits are mapped as integers and widened on lookup.
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_MAX_HEADER_BYTES = 1 << 20
_AGAIN = "export the bundle again"


class Embedding:
    """Rows of ``embed_tokens.weight`` ``[vocab, C]`` in a safetensors file, as fp32, fp16 or bf16.

    ``vocab_size`` and ``hidden_size`` are the shape that is expected. Raises BundleError for any other file.
    """

    def __init__(self, path: Path, *, vocab_size: int, hidden_size: int) -> None:
        dtype, offset = _locate(path, (vocab_size, hidden_size))
        self._bfloat16 = dtype == "BF16"
        self._rows = np.memmap(path, _DTYPES[dtype], mode="r", offset=offset, shape=(vocab_size, hidden_size))

    def gather(self, ids: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """Rows of ``ids`` int64 ``[n]``, as ``[n, C]`` of ``dtype`` (float32 or float16). Raises IndexError."""
        if len(ids) and ids.min() < 0:
            raise IndexError(f"token id {ids.min()} is negative; image positions have no word embedding")
        rows = np.asarray(self._rows[ids])
        if self._bfloat16:
            rows = (rows.astype(np.uint32) << 16).view(np.float32)
        return rows.astype(dtype, copy=False)


def _locate(path: Path, shape: tuple[int, int]) -> tuple[str, int]:
    """The dtype and the byte offset of the table (safetensors: 8 bytes of header length, JSON header, data)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if size >= 8 and length <= min(size - 8, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise BundleError(f"{path}: the word embeddings cannot be read ({error.strerror}); {_AGAIN}") from error
    entry = _entry(path, header)
    dtype, begin, end = entry["dtype"], *entry["data_offsets"]
    if tuple(entry["shape"]) != shape:
        raise BundleError(f"{path}: {TENSOR_NAME} is {entry['shape']}, the manifest says {list(shape)}; {_AGAIN}")
    if dtype not in _DTYPES:
        raise BundleError(f"{path}: {TENSOR_NAME} is {dtype}; expected F32, F16 or BF16; {_AGAIN}")
    start = 8 + length + begin
    if begin < 0 or end - begin != math.prod(shape) * _DTYPES[dtype].itemsize or 8 + length + end > size:
        raise BundleError(f"{path}: the data of {TENSOR_NAME} is not where the header says; {_AGAIN}")
    return dtype, start


def _entry(path: Path, header: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(header)[TENSOR_NAME]
        well_formed = (
            isinstance(entry["dtype"], str)
            and len(entry["data_offsets"]) == 2
            and all(type(number) is int for number in [*entry["shape"], *entry["data_offsets"]])
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: not a safetensors file with '{TENSOR_NAME}'; {_AGAIN}") from error
    if not well_formed:
        raise BundleError(f"{path}: the header of '{TENSOR_NAME}' is malformed; {_AGAIN}")
    return entry
