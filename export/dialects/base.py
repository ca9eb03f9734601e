"""The operator layer: what a graph may say, and who writes it down.

Graph code (``parrot_export.graphs``) knows layers, names and shapes; a dialect knows operators. The base class writes
what every runtime has as one standard operator; a dialect adds norms with their residual sum, attention, and the KV
cache, whose inputs differ between runtimes. Nothing in the graph code asks which dialect it is written in.

*Rows* are a 2-D value ``[tokens, width]``, batch and sequence merged: a Linear is then one Gemm on weights in the
checkpoint's own layout ``[out, in]``, which both onnxruntime and TensorRT take without a transposition.
"""

import abc
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from parrot_export.architecture import MOE, Decoder
from parrot_export.dialects.writer import GraphWriter
from parrot_runtime.errors import InputError

# x · sigmoid(α·x): CLIP's quick_gelu, and SiLU at α = 1.
_SIGMOID_GATES = {"quick_gelu": 1.702, "silu": 1.0, "swish": 1.0}
_GELUS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True)
class Norm:
    """A norm's tensors: ``weight`` and, for a layer norm, ``bias``, below ``name``."""

    name: str
    epsilon: float


@dataclass(frozen=True)
class SelfAttention:
    """The input projections of one attention, by the names of their modules; ``width`` is heads times their width.

    ``norms`` are the RMS norms of queries and keys, head by head, where the model has them.
    """

    queries: str
    keys: str
    values: str
    heads: int
    width: int
    bias: bool = True
    norms: tuple[Norm, Norm] | None = None


@dataclass(frozen=True)
class KVCache:
    """The decoder's cache while its graph is written.

    ``shape`` is int64 ``[3]``: batch, sequence of this call, and -1. ``past`` holds key and value of each layer,
    ``present`` takes their successors. ``controls`` is what this dialect's attention needs beside them.
    """

    decoder: Decoder
    shape: ir.Value
    past: tuple[tuple[ir.Value, ir.Value], ...]
    controls: tuple[ir.Value, ...]
    present: list[tuple[ir.Value, ir.Value]] = field(default_factory=list)


# Products that no plan rounds: the router's is a handful of rows wide and decides over whole experts.
EXACT = frozenset({f"{MOE}.router"})


class Dialect(GraphWriter, abc.ABC):
    """The operators graphs are made of."""

    # What dialects write differently

    @abc.abstractmethod
    def layer_norm_sum(self, rows: ir.Value, update: ir.Value, norm: Norm) -> tuple[ir.Value, ir.Value]:
        """``rows + update`` and its layer norm."""

    @abc.abstractmethod
    def rms_norm(self, rows: ir.Value, norm: Norm) -> ir.Value:
        """x / √(mean(x²) + ε) · weight."""

    @abc.abstractmethod
    def rms_norm_sum(self, rows: ir.Value, update: ir.Value, norm: Norm) -> tuple[ir.Value, ir.Value]:
        """``rows + update`` and its RMS norm."""

    @abc.abstractmethod
    def attention(self, rows: ir.Value, of: SelfAttention, sequence: int) -> ir.Value:
        """Attention of every position to every other, over rows of ``sequence`` tokens each; no output product."""

    @abc.abstractmethod
    def kv_cache(self, embeds: ir.Value, decoder: Decoder, max_len: int) -> KVCache:
        """The cache's graph inputs, for a call on ``embeds`` ``[batch, seq, C]`` and at most ``max_len`` positions."""

    @abc.abstractmethod
    def cached_attention(self, rows: ir.Value, of: SelfAttention, cache: KVCache, layer: int) -> ir.Value:
        """Causal attention with rotary embedding over the cache, which takes the new keys and values."""

    @abc.abstractmethod
    def last_positions(self, cache: KVCache, *rows: ir.Value) -> list[ir.Value]:
        """Of each value's sequences, the row of the last valid position: ``[batch, width]`` each."""

    @abc.abstractmethod
    def sigmoid_gate(self, value: ir.Value, alpha: float) -> ir.Value:
        """x · sigmoid(``alpha`` · x)."""

    def output_cache(self, cache: KVCache) -> None:
        """Give the extended cache out, as ``present.N.key`` and ``present.N.value``."""
        for number, (past, present) in enumerate(zip(cache.past, cache.present, strict=True)):
            for part, old, new in zip(("key", "value"), past, present, strict=True):
                self.output(f"present.{number}.{part}", new, self.present_axes(old), self.plan.compute)

    def present_axes(self, past: ir.Value) -> tuple[str | int, ...]:
        """The axes of the successor of ``past``."""
        return tuple(past.shape)

    # What one standard operator says everywhere

    def linear(self, rows: ir.Value, *modules: str, bias: bool = True) -> ir.Value:
        """x·Wᵀ + b of one module, or of several on the same input with their outputs side by side."""
        self.enter(rows, *modules)
        inputs = [rows, self.matrix(*(f"{module}.weight" for module in modules))]
        if bias:
            inputs.append(self.vector(*(f"{module}.bias" for module in modules)))
        return self.op("Gemm", inputs, {"transB": 1})

    def wide_linear(self, rows: ir.Value, module: str) -> ir.Value:
        """x·Wᵀ whose inputs and outputs may leave float16's range: the product that ends a language model's MLP."""
        return self.linear(rows, module, bias=False)

    def mix(self, rows: ir.Value, module: str) -> ir.Value:
        """The sum over experts of their output products: rows ``[tokens, E·I]`` on weights ``[E, C, I]``."""
        self.enter(rows, module)
        return self.op("Gemm", [rows, self.columns(f"{module}.weight")], {"transB": 1})

    def patches(self, pixels: ir.Value, module: str, size: int, *, bias: bool = False) -> ir.Value:
        """One product per patch: ``[images, channels, S, S]`` → ``[images, patches, width]``."""
        strides = {"kernel_shape": [size, size], "strides": [size, size]}
        inputs = [pixels, self.kernel(f"{module}.weight")]
        if bias:
            inputs.append(self.cast(self.vector(f"{module}.bias"), inputs[1].dtype))
        grid = self.op("Conv", inputs, strides)
        return self.transpose(self.op("Reshape", [grid, self.integers(0, 0, -1)]), 0, 2, 1)

    def layer_norm(self, rows: ir.Value, norm: Norm) -> ir.Value:
        """(x - mean) / √(variance + ε) · weight + bias, over the last axis."""
        inputs = [rows, self.vector(f"{norm.name}.weight"), self.vector(f"{norm.name}.bias")]
        return self.op("LayerNormalization", inputs, {"epsilon": norm.epsilon})

    def activation(self, value: ir.Value, name: str) -> ir.Value:
        """The activation Hugging Face configurations call ``name``. Raises InputError for one without an operator."""
        if name in _SIGMOID_GATES:
            return self.sigmoid_gate(value, _SIGMOID_GATES[name])
        if name in _GELUS:
            return self.gelu(value, _GELUS[name])
        if name == "relu":
            return self.op("Relu", [value])
        known = ", ".join((*_SIGMOID_GATES, *_GELUS, "relu"))
        raise InputError(f"the activation '{name}' cannot be exported; expected one of {known}")

    def gelu(self, value: ir.Value, approximate: str) -> ir.Value:
        """x·Φ(x), with Φ by its ``tanh`` approximation or exactly (``none``)."""
        return self.op("Gelu", [value], {"approximate": approximate})

    def softmax(self, value: ir.Value) -> ir.Value:
        """Over the last axis, in float32 whatever the computing type."""
        return self.op("Softmax", [self.cast(value, ir.DataType.FLOAT)], {"axis": -1})

    def masked_softmax(self, scores: ir.Value, mask: ir.Value) -> ir.Value:
        """Softmax in float32 over the places where ``mask`` (bool) is true; all zero where it is true nowhere."""
        scores = self.cast(scores, ir.DataType.FLOAT)
        lowest = self.number(float(np.finfo(np.float32).min), scores)
        weights = self.softmax(self.op("Where", [mask, scores, lowest], dtype=ir.DataType.FLOAT))
        return self.multiply(weights, self.cast(mask, ir.DataType.FLOAT))

    def matmul(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """A batched product of two activations."""
        return self.op("MatMul", [left, right])

    def add(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Element by element, with broadcasting."""
        return self.op("Add", [left, right])

    def multiply(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Element by element, with broadcasting."""
        return self.op("Mul", [left, right])

    def scale(self, value: ir.Value, factor: float) -> ir.Value:
        """``value`` times a number; itself for the number one."""
        return value if factor == 1.0 else self.multiply(value, self.number(factor, value))

    def reshape(self, value: ir.Value, *dims: int) -> ir.Value:
        """A fixed shape; -1 takes what is left."""
        return self.op("Reshape", [value, self.integers(*dims)])

    def transpose(self, value: ir.Value, *order: int) -> ir.Value:
        """Axes in another order."""
        return self.op("Transpose", [value], {"perm": list(order)})

    def row(self, value: ir.Value, number: int) -> ir.Value:
        """``[batch, rows, width]`` → ``[batch, 1, width]``, row ``number``."""
        return self.op("Gather", [value, self.integers(number)], {"axis": 1})

    def mean_row(self, value: ir.Value) -> ir.Value:
        """``[batch, rows, width]`` → ``[batch, 1, width]``, the mean of the rows."""
        return self.op("ReduceMean", [value, self.integers(1)], {"keepdims": 1})

    def rows_after(self, value: ir.Value, count: int) -> ir.Value:
        """``[batch, rows, width]`` without its first ``count`` rows."""
        return self.op("Slice", [value, self.integers(count), self.integers(2**31 - 1), self.integers(1)])

    def rows_before(self, value: ir.Value, count: int) -> ir.Value:
        """``[batch, rows, width]`` with ``count`` rows of zeros put before."""
        return self.op("Pad", [value, self.integers(0, count, 0, 0, 0, 0)])
