"""Quantised products in standard operators: DequantizeLinear on weights, QuantizeLinear and it on activations.

A weight of int8 or fp8 has one scale per output channel, an int4 weight one per block of 128 numbers along K (of 64 or
32 where 128 does not divide K; a matrix that none of these divides stays in the type of the products). An activation
has one scale, fixed at export from the largest value it was seen to take.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from parrot_export.dialects.base import Dialect
from parrot_export.dialects.writer import STORED
from parrot_export.quantise import LIMITS, Rounding, quantised_columns, quantised_rows
from parrot_export.slabs import StoredTensor
from parrot_export.weights import Block
from parrot_runtime.errors import InputError

_ZEROS = {"int8": np.array(0, np.int8), "float8_e4m3fn": np.array(0, ml_dtypes.float8_e4m3fn)}


class QuantisedDialect(Dialect):
    """The operands of products, as the plan's component says."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._operands: dict[tuple[str, str, float, float], ir.Value] = {}

    def weights(self, *names: str) -> ir.Value:
        """``matrix``, through codes and scales where the plan stores it so."""
        shape = self.matrix_shape(*names)
        rounding = self._rounding(names[0], shape[1])
        if rounding is None:
            return self.matrix(*names)
        pairs = [self._pair(name, rounding, quantised_rows, self._checkpoint.tensors[name]) for name in names]
        return self._dequantised("+".join(names), pairs, shape, rounding)

    def weight_columns(self, name: str) -> ir.Value:
        """``columns``, through codes and scales where the plan stores it so."""
        tensor = self._checkpoint.tensors[name]
        count, rows, inner = tensor.shape
        rounding = self._rounding(f"{name}.columns", count * inner)
        if rounding is None:
            return self.columns(name)
        pairs = [self._pair(f"{name}.columns", rounding, quantised_columns, tensor)]
        return self._dequantised(f"{name}.columns", pairs, (rows, count * inner), rounding)

    def _pair(
        self, name: str, rounding: Rounding, quantised: Callable[..., tuple[Block, Block]], tensor: StoredTensor
    ) -> tuple[Block, Block]:
        """Codes and scales, as calibrated or rounded to nearest."""
        if rounding.kind == "int4" and self.scales and self.scales.int4_block(name):
            return self.scales.signed(name, rounding.scales)
        return quantised(tensor, rounding)

    def _rounding(self, name: str, columns: int) -> Rounding | None:
        kind = self.plan.weights
        if not self.plan.quantised:
            return None
        block = self.int4_block(name, columns) if kind == "int4" else None
        return None if kind == "int4" and block is None else Rounding(kind, self.plan.compute, block)

    def _dequantised(
        self, key: str, pairs: list[tuple[Block, Block]], shape: tuple[int, int], rounding: Rounding
    ) -> ir.Value:
        kind, block = rounding.kind, rounding.block
        groups = (shape[0], shape[1] // block) if block else (shape[0],)
        codes, scales = zip(*pairs, strict=True)
        inputs = [
            self._initialiser(f"{key}.{kind}", lambda: self._weights.place(codes, shape, kind)),
            self._initialiser(f"{key}.{kind}.scales", lambda: self._weights.place(scales, groups)),
        ]
        attributes = {"axis": 1, "block_size": block} if block else {"axis": 0}
        return self.op("DequantizeLinear", inputs, attributes, dtype=self.product)

    def operand(self, rows: ir.Value, module: str, shrink: float = 1.0) -> ir.Value:
        """``rows / shrink`` as the product of ``module`` takes them; asked for again, the same value.

        Raises InputError when the plan rounds activations and the ranges do not say how large this one gets.
        """
        kind = self.plan.activations
        scale = self._activation_scale(module, kind, shrink) if kind else 0.0
        key = (rows.name, str(self.product), shrink, scale)
        if key not in self._operands:
            small = self.scale(rows, 1 / shrink)
            self._operands[key] = self._rounded(small, kind, scale) if kind else self.cast(small, self.product)
        return self._operands[key]

    def _activation_scale(self, module: str, kind: str, shrink: float) -> float:
        if module not in self.ranges:
            raise InputError(
                f"{module}: no range is known for what enters it, and {kind} activations need one; "
                "collect ranges over samples that run every graph"
            )
        scale = self.ranges[module] / shrink / LIMITS[kind]
        # Rounded once to the type of the product, so that both sides of the codes have the same scale.
        rounded = float(np.array(scale, self.product.numpy()))
        return rounded if rounded > 0 else float(ml_dtypes.finfo(self.product.numpy()).tiny)

    def _rounded(self, rows: ir.Value, kind: str, scale: float) -> ir.Value:
        zero = self.constant(_ZEROS[kind])
        codes = self.op("QuantizeLinear", [rows, self.number(scale, rows), zero], dtype=STORED[kind])
        narrow = self.constant(np.array(scale, self.product.numpy()))
        return self.op("DequantizeLinear", [codes, narrow, zero], dtype=self.product)
