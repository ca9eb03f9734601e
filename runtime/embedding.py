"""The word embeddings of a bundle, memory-mapped: a lookup touches only the rows it needs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from parrot_runtime.errors import BundleError

TENSOR_NAME = "embed_tokens.weight"
SCALES_NAME = f"{TENSOR_NAME}.scales"
# bfloat16 is not a numpy type: its bits are mapped as integers and widened on lookup.
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "U8": np.dtype("u1")}
# What stands for zero among codes of 8 bits: that of onnxruntime's ``MatMulNBits``, which reads the same table.
_ZERO = np.float32(128)
_MAX_HEADER_BYTES = 1 << 20
_AGAIN = "export the bundle again"


class Embedding:
    """Rows of ``embed_tokens.weight`` ``[vocab, C]`` in a safetensors file, as fp32, fp16, bf16 or codes of 8 bits.

    Codes are U8 and have F32 ``embed_tokens.weight.scales`` ``[vocab, groups]`` beside them: a row is ``groups`` blocks
    of neighbours, and a number is (code - 128) · the scale of its block.

    ``vocab_size`` and ``hidden_size`` are the shape that is expected. Raises BundleError for any other file.
    """

    def __init__(self, path: Path, *, vocab_size: int, hidden_size: int) -> None:
        header, start = _read_header(path)
        dtype, offset = _locate(path, header, start, (vocab_size, hidden_size))
        self._bfloat16 = dtype == "BF16"
        self._rows = np.memmap(path, _DTYPES[dtype], mode="r", offset=offset, shape=(vocab_size, hidden_size))
        self._scales = _map_scales(path, header, start, (vocab_size, hidden_size)) if dtype == "U8" else None

    def gather(self, ids: np.ndarray, dtype: str = "float32") -> np.ndarray:
        """Rows of ``ids`` int64 ``[n]``, as ``[n, C]`` of ``dtype`` (float32 or float16). Raises IndexError for ids
        below zero, BundleError for those of another tokenizer."""
        if len(ids) and ids.min() < 0:
            raise IndexError(f"token id {ids.min()} is negative; image positions have no word embedding")
        if len(ids) and ids.max() >= len(self._rows):
            raise BundleError(
                f"token id {ids.max()} of the bundle's tokenizer is beyond the {len(self._rows)} of its model; export "
                "the bundle again with the model's own tokenizer"
            )
        rows = np.asarray(self._rows[ids])
        if self._bfloat16:
            rows = (rows.astype(np.uint32) << 16).view(np.float32)
        elif self._scales is not None:
            scales = np.asarray(self._scales[ids])
            blocks = (rows.astype(np.float32) - _ZERO).reshape(*scales.shape, rows.shape[1] // scales.shape[1])
            rows = (blocks * scales[..., None]).reshape(rows.shape)
        return rows.astype(dtype, copy=False)


def _read_header(path: Path) -> tuple[bytes, int]:
    """The JSON header, and where the data starts (safetensors: 8 bytes of header length, JSON header, data)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if size >= 8 and length <= min(size - 8, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise BundleError(f"{path}: the word embeddings cannot be read ({error.strerror}); {_AGAIN}") from error
    return header, 8 + length


def _locate(path: Path, header: bytes, start: int, shape: tuple[int, int]) -> tuple[str, int]:
    """The dtype and the byte offset of the table."""
    entry = _entry(path, header, TENSOR_NAME)
    if tuple(entry["shape"]) != shape:
        raise BundleError(f"{path}: {TENSOR_NAME} is {entry['shape']}, the manifest says {list(shape)}; {_AGAIN}")
    if entry["dtype"] not in _DTYPES:
        raise BundleError(f"{path}: {TENSOR_NAME} is {entry['dtype']}; expected F32, F16, BF16 or U8; {_AGAIN}")
    return entry["dtype"], _offset(path, entry, start, TENSOR_NAME)


def _map_scales(path: Path, header: bytes, start: int, shape: tuple[int, int]) -> np.ndarray:
    """The scales of codes of ``shape``: float32 ``[vocab, groups]``."""
    entry = _entry(path, header, SCALES_NAME)
    found = entry["shape"]
    if entry["dtype"] != "F32" or len(found) != 2 or found[0] != shape[0] or found[1] < 1 or shape[1] % found[1]:
        raise BundleError(
            f"{path}: {SCALES_NAME} is {entry['dtype']} {found}; expected F32 [{shape[0]}, n], where n divides "
            f"{shape[1]}; {_AGAIN}"
        )
    return np.memmap(path, "<f4", mode="r", offset=_offset(path, entry, start, SCALES_NAME), shape=tuple(found))


def _offset(path: Path, entry: dict[str, Any], start: int, name: str) -> int:
    """Where the tensor of ``entry`` begins, in bytes from the start of the file, all of which must be there."""
    begin, end = entry["data_offsets"]
    length = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
    if begin < 0 or end - begin != length or start + end > path.stat().st_size:
        raise BundleError(f"{path}: the data of {name} is not where the header says; {_AGAIN}")
    return start + begin


def _entry(path: Path, header: bytes, name: str) -> dict[str, Any]:
    try:
        entry = json.loads(header)[name]
        well_formed = (
            isinstance(entry["dtype"], str)
            and len(entry["data_offsets"]) == 2
            and all(type(number) is int for number in [*entry["shape"], *entry["data_offsets"]])
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: not a safetensors file with '{name}'; {_AGAIN}") from error
    if not well_formed:
        raise BundleError(f"{path}: the header of '{name}' is malformed; {_AGAIN}")
    return entry
