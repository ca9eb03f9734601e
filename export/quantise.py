"""Weights rounded to few bits as they are written: codes and scales as two blocks of a weight file.

Symmetric, without zero points: a code times its scale is the weight. Nothing is held but a few MiB of one tensor, which
is read once for its scales and once more for its codes. Scales are rounded to their stored type before the codes are
chosen, so that rounding is no error of its own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from parrot_export.slabs import StoredTensor
from parrot_export.weights import Block
from parrot_runtime.errors import ParrotError

# The largest code of each kind.
LIMITS = {"int8": 127.0, "uint8": 127.0, "int4": 7.0, "uint4": 7.0, "float8_e4m3fn": 448.0}
# Two codes to a byte.
PACKED = frozenset({"int4", "uint4"})
# Rows of a transposed matrix that are laid down at a time.
_TURNED_ROWS = 256
# How many neighbours along K share an int4 scale; the first that divides K is taken.
INT4_BLOCKS = (128, 64, 32)


@dataclass(frozen=True)
class Rounding:
    """To what, and how many numbers along K share a scale (None: a whole row, which is an output channel).

    ``uint4`` are the codes of ``int4`` plus eight, ``uint8`` those of ``int8`` plus 128. ``scales`` is the numpy name
    of the scales' type.
    """

    kind: str
    scales: str
    block: int | None = None


def int4_block(columns: int, largest: int = INT4_BLOCKS[0]) -> int | None:
    """The block for a matrix of K = ``columns``, ``largest`` at most; None when none of ``INT4_BLOCKS`` divides it."""
    return next((block for block in INT4_BLOCKS if block <= largest and columns % block == 0), None)


def quantised_rows(tensor: StoredTensor, rounding: Rounding) -> tuple[Block, Block]:
    """Codes and scales of ``tensor``, whose rows ``[…, K]`` are output channels."""
    shape = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    return _quantised(tensor.name, shape, tensor.row_chunks, rounding)


def quantised_columns(tensor: StoredTensor, rounding: Rounding) -> tuple[Block, Block]:
    """Codes and scales of experts' ``[E, C, I]`` side by side, ``[C, E·I]``."""
    return _quantised(*_side_by_side(tensor), rounding)


def transposed(tensors: Sequence[StoredTensor], rounding: Rounding) -> tuple[Block, Block]:
    """Codes ``[K, N]`` and scales ``[N]`` of tensors whose rows ``[…, K]`` are N output channels in all."""
    shape = sum(math.prod(tensor.shape[:-1]) for tensor in tensors), tensors[0].shape[-1]
    rows = lambda: (chunk for tensor in tensors for chunk in tensor.row_chunks())  # noqa: E731
    return _turned("+".join(tensor.name for tensor in tensors), shape, rows, rounding)


def transposed_columns(tensor: StoredTensor, rounding: Rounding) -> tuple[Block, Block]:
    """Codes ``[E·I, C]`` and scales ``[C]`` of experts' ``[E, C, I]``."""
    return _turned(*_side_by_side(tensor), rounding)


def _side_by_side(tensor: StoredTensor) -> tuple[str, tuple[int, int], Callable[[], Iterator[np.ndarray]]]:
    """Name, shape and rows of experts' ``[E, C, I]`` as ``[C, E·I]``."""
    count, rows, columns = tensor.shape
    width = count * columns
    return f"{tensor.name}.columns", (rows, width), lambda: (c.reshape(-1, width) for c in tensor.column_chunks())


def _turned(
    name: str, shape: tuple[int, int], rows: Callable[[], Iterator[np.ndarray]], rounding: Rounding
) -> tuple[Block, Block]:
    """``_quantised``, its codes transposed: all of them, at a byte each, are in memory while they are turned."""
    codes, scales = _quantised(name, shape, rows, rounding)

    def turned() -> Iterator[np.ndarray]:
        whole = np.concatenate(list(codes.chunks())).reshape(shape)
        for start in range(0, shape[1], _TURNED_ROWS):
            yield np.ascontiguousarray(whole[:, start : start + _TURNED_ROWS].T).reshape(-1)

    return replace(codes, name=f"{codes.name}.transposed", shape=shape[::-1], chunks=turned), scales


def _quantised(
    name: str, shape: tuple[int, int], rows: Callable[[], Iterator[np.ndarray]], rounding: Rounding
) -> tuple[Block, Block]:
    kind, block = rounding.kind, rounding.block
    groups = shape[0], shape[1] // (block or shape[1])
    codes_shape, codes_type = ((shape[0], shape[1] // 2), "uint8") if kind in PACKED else (shape, kind)

    def grouped() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for chunk in rows():
            numbers = chunk.astype(np.float32).reshape(len(chunk), groups[1], -1)
            yield numbers, group_scales(numbers, rounding, name)

    return (
        Block(f"{name}.{kind}", codes_type, codes_shape, lambda: (group_codes(*pair, kind) for pair in grouped())),
        Block(
            f"{name}.{kind}.scales",
            rounding.scales,
            groups if block else groups[:1],
            lambda: (scales.reshape(-1) for _, scales in grouped()),
        ),
    )


def group_scales(groups: np.ndarray, rounding: Rounding, name: str) -> np.ndarray:
    """``[rows, groups, numbers]`` → one scale per group, ``[rows, groups]``."""
    peaks = np.abs(groups).max(axis=-1)
    if not np.isfinite(peaks).all():
        raise ParrotError(f"{name} holds NaN or infinity; train again from the last good checkpoint")
    scales = (peaks / np.float32(LIMITS[rounding.kind])).astype(rounding.scales)
    # A group of zeros, or one too small for its type of scale, has codes of zero under any scale.
    return np.where(scales > 0, scales, np.ones_like(scales))


def group_codes(groups: np.ndarray, scales: np.ndarray, kind: str) -> np.ndarray:
    """``groups`` as codes under ``scales``, flat; two to a byte for the kinds of four bits."""
    limit = LIMITS[kind]
    scaled = np.clip(groups / scales.astype(np.float32)[..., None], -limit, limit).reshape(-1)
    if kind == "float8_e4m3fn":
        return scaled.astype(ml_dtypes.float8_e4m3fn)
    codes = np.rint(scaled).astype(np.int8)
    if kind in ("int8", "uint8"):
        return codes if kind == "int8" else codes.view(np.uint8) ^ np.uint8(0x80)
    return two_to_a_byte((codes + np.int8(8 if kind == "uint4" else 0)).view(np.uint8) & 0xF)


def two_to_a_byte(codes: np.ndarray) -> np.ndarray:
    """uint8 ``[..., 2n]`` of codes below 16 → ``[..., n]``, the first in the lower half, as ONNX packs them."""
    return codes[..., ::2] | (codes[..., 1::2] << 4)
