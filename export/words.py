"""The word embeddings' table as a bundle has it, which a tied output layer may read too.

In 8 bits (code - 128) · scale is the number, one scale per block of 128 neighbours in a row (of 64 or 32, or a whole
row, where 128 does not divide it): round-to-nearest by the block's largest, as Q8_0 of llama.cpp and the weights of
``MatMulNBits`` have it. Rows are looked up, never multiplied from the left, so a scale per row would do as well; blocks
are what lets onnxruntime's product read the very same bytes.
"""

from dataclasses import replace

from parrot_export.quantise import Rounding, int4_block, quantised_rows
from parrot_export.slabs import StoredTensor
from parrot_export.weights import Block, copied
from parrot_runtime.embedding import SCALES_NAME, TENSOR_NAME


def word_table(tensor: StoredTensor, dtype: str) -> list[Block]:
    """``tensor`` ``[vocab, C]`` as the file of the word embeddings holds it: one block, or codes and scales of int8."""
    if dtype != "int8":
        return [copied(tensor, dtype, name=TENSOR_NAME)]
    codes, scales = eight_bits(tensor, int4_block(tensor.shape[1]) or tensor.shape[1])
    return [replace(codes, name=TENSOR_NAME), replace(scales, name=SCALES_NAME)]


def eight_bits(tensor: StoredTensor, block: int) -> tuple[Block, Block]:
    """Codes uint8 ``[N, K]`` and scales float32 ``[N, K / block]`` of ``tensor`` ``[N, K]``."""
    return quantised_rows(tensor, Rounding("uint8", "float32", block))
