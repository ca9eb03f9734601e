"""Rounding in numpy, as the exported graphs do it: what the searches for better factors and codes measure.

int8 weights have one symmetric scale per output channel and activations one for all (Jacob et al. 2018,
arXiv:1712.05877); int4 weights have a scale, and where asked for a zero point, per block along K.
"""

from dataclasses import dataclass

import numpy as np

from parrot_export.quantise import Rounding, group_codes, group_scales

_INT8 = Rounding("int8", "float32")


@dataclass(frozen=True)
class FourBits:
    """Codes 0 to 15 of a matrix ``[N, K]``: (code - zero) · scale, one scale and zero point per ``block`` along K.

    Symmetric: zero points are 8 and codes 1 to 15, so that the largest of a block is met on either side. Scales are
    rounded to float16 before codes are chosen: TensorRT has them so, and onnxruntime the very same numbers in float32.
    """

    block: int
    asymmetric: bool = False

    def grid(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 ``[..., block]`` → scales and zero points ``[...]``, float32."""
        if self.asymmetric:
            # Zero has a code of its own, so that what was pruned stays so.
            low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
            scales = _half((high - low) / 15)
            return scales, np.clip(np.rint(-low / scales), 0, 15)
        scales = _half(np.abs(blocks).max(-1) / 7)
        return scales, np.full_like(scales, 8)

    def codes(self, numbers: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
        """uint8 codes of ``numbers``, to nearest; all arguments of shapes that broadcast."""
        least = 0 if self.asymmetric else 1
        return np.clip(np.rint(numbers / scales) + zeros, least, 15).astype(np.uint8)

    def quantise(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float32 ``[N, K]`` → codes uint8 ``[N, K]``, scales and zero points float32 ``[N, K / block]``."""
        blocks = matrix.reshape(len(matrix), -1, self.block)
        scales, zeros = self.grid(blocks)
        return self.codes(blocks, scales[..., None], zeros[..., None]).reshape(matrix.shape), scales, zeros

    def dequantise(self, codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
        """The inverse of ``quantise``: float32 ``[N, K]``."""
        blocks = codes.reshape(len(codes), -1, self.block).astype(np.float32)
        return ((blocks - zeros[..., None]) * scales[..., None]).reshape(codes.shape)

    def round_trip(self, matrix: np.ndarray) -> np.ndarray:
        """``matrix`` float32 ``[N, K]`` as its codes have it."""
        return self.dequantise(*self.quantise(matrix))


def int8_rows(matrix: np.ndarray) -> np.ndarray:
    """float32 ``[N, K]`` rounded to int8 by one scale per row."""
    groups = matrix[:, None, :]
    scales = group_scales(groups, _INT8, "a matrix")
    return group_codes(groups, scales, "int8").reshape(matrix.shape) * scales


def int8_all(rows: np.ndarray, threshold: float) -> np.ndarray:
    """float32 numbers rounded to int8 by one scale for all, ``threshold`` being code 127."""
    scale = np.float32(threshold / 127)
    return np.clip(np.rint(rows / scale), -127, 127) * scale if scale > 0 else rows


def _half(scales: np.ndarray) -> np.ndarray:
    """Rounded to float16; 1 where nothing is left, for a block of zeros has codes of zero under any scale."""
    rounded = scales.astype(np.float16).astype(np.float32)
    return np.where(rounded > 0, rounded, np.float32(1))
