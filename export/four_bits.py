"""The codes of 4 bits of a matrix, as ``MatMulNBits`` takes them: a calibration's, or rounded to nearest."""

from collections.abc import Callable

from parrot_export.quantise import Rounding, quantised_columns, quantised_rows
from parrot_export.scales import Scales
from parrot_export.slabs import StoredTensor
from parrot_export.weights import Block

# Codes, scales and zero points; without these all are eight.
FourBits = tuple[Block, Block, Block | None]


def four_bits(tensor: StoredTensor, block: int, scales: Scales | None) -> FourBits:
    """Of ``tensor``, whose rows ``[…, K]`` are output channels, with a scale for each ``block`` numbers along K."""
    return _four_bits(tensor.name, tensor, block, scales, quantised_rows)


def four_bits_of_columns(tensor: StoredTensor, block: int, scales: Scales | None) -> FourBits:
    """Of experts' ``[E, C, I]`` side by side, ``[C, E·I]``."""
    return _four_bits(f"{tensor.name}.columns", tensor, block, scales, quantised_columns)


def _four_bits(
    name: str,
    tensor: StoredTensor,
    block: int,
    scales: Scales | None,
    rounded: Callable[[StoredTensor, Rounding], tuple[Block, Block]],
) -> FourBits:
    if scales and scales.int4_block(name):
        return scales.unsigned(name)
    return *rounded(tensor, Rounding("uint4", "float32", block)), None
