"""onnxruntime's quantised products, by kernels that round their inputs themselves.

Two kernels, neither of them the best at both ends (``docs/performance.md``): ``DynamicQuantizeMatMul`` takes int8
weights with a scale per output channel and rounds what enters by one scale for all of it, and is the fastest on many
rows; ``MatMulNBits`` takes 4-bit weights with a scale per block of 128 along K, and is the fastest on one.
"""

from functools import partial

import onnx_ir as ir

from parrot_export.dialects.base import EXACT, Dialect
from parrot_export.quantise import Rounding, quantised_rows, transposed, transposed_columns
from parrot_export.weights import Block

MICROSOFT = "com.microsoft"
_ROW_SCALES = Rounding("int8", "float32")
# What enters is rounded to int8 block by block: measured two to four times as fast as the other levels.
_ACCURACY_LEVEL = 4


class OrtProducts(Dialect):
    """Products with the weights that the plan's component says."""

    def linear(self, rows: ir.Value, *modules: str, bias: bool = True) -> ir.Value:
        names = [f"{module}.weight" for module in modules]
        block = self.int4_block(names[0], self.matrix_shape(*names)[1]) if self.plan.weights == "int4" else None
        if modules[0] in EXACT or not (block or self.plan.weights == "int8"):
            return super().linear(rows, *modules, bias=bias)
        self.enter(rows, *modules)
        added = self.vector(*(f"{module}.bias" for module in modules)) if bias else None
        if block:
            return self._by_blocks(rows, names, block, added)
        return self._by_channels(
            rows, transposed([self._checkpoint.tensors[name] for name in names], _ROW_SCALES), added
        )

    def mix(self, rows: ir.Value, module: str) -> ir.Value:
        if self.plan.weights != "int8":
            return super().mix(rows, module)
        self.enter(rows, module)
        return self._by_channels(rows, transposed_columns(self._checkpoint.tensors[f"{module}.weight"], _ROW_SCALES))

    def _by_channels(self, rows: ir.Value, pair: tuple[Block, Block], bias: ir.Value | None = None) -> ir.Value:
        operands = [self._initialiser(block.name, partial(self._weights.place, [block])) for block in pair]
        return self.op("DynamicQuantizeMatMul", [rows, *operands, None, bias], domain=MICROSOFT)

    def _by_blocks(self, rows: ir.Value, names: list[str], block: int, bias: ir.Value | None) -> ir.Value:
        outputs, inputs = self.matrix_shape(*names)
        codes, scales, zeros = zip(*(self._four_bits(name, block) for name in names), strict=True)
        groups, key = inputs // block, "+".join(names)
        operands = [
            self._initialiser(f"{key}.uint4", lambda: self._weights.place(codes, (outputs, groups, block // 2))),
            self._initialiser(f"{key}.uint4.scales", lambda: self._weights.place(scales, (outputs * groups,))),
        ]
        if zeros[0] is not None:
            shape = (outputs * ((groups + 1) // 2),)
            operands.append(self._initialiser(f"{key}.uint4.zeros", lambda: self._weights.place(zeros, shape)))
        operands += [None] * (4 - len(operands))  # zero points, where there are none, and the order of groups
        attributes = {"K": inputs, "N": outputs, "bits": 4, "block_size": block, "accuracy_level": _ACCURACY_LEVEL}
        return self.op("MatMulNBits", [rows, *operands, bias], attributes, domain=MICROSOFT)

    def _four_bits(self, name: str, block: int) -> tuple[Block, Block, Block | None]:
        """Codes, scales and zero points (None: all are eight), as calibrated or rounded to nearest."""
        if self.scales and self.scales.int4_block(name):
            return self.scales.unsigned(name)
        return *quantised_rows(self._checkpoint.tensors[name], Rounding("uint4", "float32", block)), None
