"""onnxruntime's quantised products, by kernels that round their inputs themselves.

Two kernels, neither of them the best at both ends (``docs/performance.md``): ``DynamicQuantizeMatMul`` takes int8
weights with a scale per output channel and rounds what enters by one scale for all of it, and is the fastest on many
rows; ``MatMulNBits`` takes weights of 4 bits, or of 8, with a scale per block of 128 along K, and is the fastest on
one.
"""

from functools import partial

import onnx_ir as ir

from parrot_export.architecture import EMBEDDING
from parrot_export.dialects.base import EXACT, Dialect
from parrot_export.four_bits import four_bits, four_bits_of_columns
from parrot_export.quantise import Rounding, int4_block, transposed, transposed_columns
from parrot_export.weights import Block
from parrot_export.words import eight_bits, word_table

MICROSOFT = "com.microsoft"
_ROW_SCALES = Rounding("int8", "float32")
# What enters is rounded to int8 block by block: measured two to four times as fast as the other levels.
_ACCURACY_LEVEL = 4


class OrtProducts(Dialect):
    """Products with the weights that the plan's component says."""

    def linear(self, rows: ir.Value, *modules: str, bias: bool = True) -> ir.Value:
        names = [f"{module}.weight" for module in modules]
        block = self._block(names[0], self.matrix_shape(*names)[1])
        if modules[0] in EXACT or not (block or self.plan.weights == "int8"):
            return super().linear(rows, *modules, bias=bias)
        self.enter(rows, *modules)
        added = self.vector(*(f"{module}.bias" for module in modules)) if bias else None
        tensors = [self._checkpoint.tensors[name] for name in names]
        if not block:
            return self._by_channels(rows, transposed(tensors, _ROW_SCALES), added)
        if self.plan.weights == "int8":
            (tensor,) = tensors
            # A tied output layer finds the codes in the table of the word embeddings, where that is of 8 bits too.
            pair = word_table(tensor, "int8") if modules[0] == EMBEDDING else eight_bits(tensor, block)
            return self._by_blocks(rows, [(*pair, None)], tensor.shape, block, added, bits=8)
        blocks = [four_bits(tensor, block, self.scales) for tensor in tensors]
        return self._by_blocks(rows, blocks, self.matrix_shape(*names), block, added)

    def mix(self, rows: ir.Value, module: str) -> ir.Value:
        tensor = self._checkpoint.tensors[f"{module}.weight"]
        shape = tensor.shape[1], tensor.shape[0] * tensor.shape[2]
        block = self._block(f"{tensor.name}.columns", shape[1])
        if not (block or self.plan.weights == "int8"):
            return super().mix(rows, module)
        self.enter(rows, module)
        if block:
            return self._by_blocks(rows, [four_bits_of_columns(tensor, block, self.scales)], shape, block)
        return self._by_channels(rows, transposed_columns(tensor, _ROW_SCALES))

    def _block(self, name: str, columns: int) -> int | None:
        """How many numbers along K share a scale, None for a plan or a matrix that has none of blocks."""
        if self.plan.activations == "blocks":
            return int4_block(columns)
        return self.int4_block(name, columns) if self.plan.weights == "int4" else None

    def _by_channels(self, rows: ir.Value, pair: tuple[Block, Block], bias: ir.Value | None = None) -> ir.Value:
        operands = [self._initialiser(block.name, partial(self._weights.place, [block])) for block in pair]
        return self.op("DynamicQuantizeMatMul", [rows, *operands, None, bias], domain=MICROSOFT)

    def _by_blocks(
        self,
        rows: ir.Value,
        blocks: list[tuple[Block, Block, Block | None]],
        shape: tuple[int, int],
        block: int,
        bias: ir.Value | None = None,
        bits: int = 4,
    ) -> ir.Value:
        """``rows`` times matrices one below the other, ``shape`` in all, each of codes, scales and zero points."""
        outputs, inputs = shape
        groups, (codes, scales, zeros) = inputs // block, zip(*blocks, strict=True)
        shapes = [(outputs, groups, block * bits // 8), (outputs * groups,), (outputs * ((groups + 1) // 2),)]
        parts = [part for part in (codes, scales, zeros) if part[0] is not None]
        operands = [
            self._initialiser("+".join(each.name for each in part), partial(self._weights.place, part, wanted))
            for part, wanted in zip(parts, shapes, strict=False)
        ]
        operands += [None] * (4 - len(operands))  # zero points, where there are none, and the order of groups
        attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": block, "accuracy_level": _ACCURACY_LEVEL}
        return self.op("MatMulNBits", [rows, *operands, bias], attributes, domain=MICROSOFT)
