"""What the two TensorRT dialects share: standard operators alone, and types that the graph itself says.

TensorRT builds strongly typed networks from these graphs: no builder flag changes a type. Activations, norms, residual
sums and softmax are float32, and so are all borders but the KV cache, which has the type of the products: a host feeds
numpy's float32 whatever the precision. Matrix products alone have the plan's type; the casts around them are part of
the pointwise kernels on either side. That keeps residual streams whole that leave float16's range, as Qwen2's do.

Every graph goes by these names, where C is the LLM's width and P the positions of a picture:

    encoder   pixel_values [images, 3, S, S]                  → image_features [images, P, C]
    experts   image_features [batch, P, C],
              text_embeds [batch, text, C], text_mask bool    → visual_tokens [batch, P, C], routing [batch, experts]
    decoder   inputs_embeds [batch, seq, C],
              past_key_values.N.key, past_key_values.N.value, → logits [batch, vocabulary],
              and what the dialect asks for                     present.N.key, present.N.value

``logits`` are those of each row's last valid position of the call. A call may be padded on the right.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from parrot_export.architecture import Decoder
from parrot_export.dialects.base import EXACT, KVCache, Norm, SelfAttention
from parrot_export.dialects.quantised import QuantisedDialect
from parrot_export.dialects.rotary import rotary_tables
from parrot_export.dialects.writer import TYPES

# A power of two, so that scaling by it rounds nothing that is not subnormal.
_HEADROOM = 64.0
# Added to the score of what may not be seen; far from the lowest number, so that no sum of the two overflows.
_HIDDEN = -1e30


@dataclass(frozen=True)
class Heads:
    """The heads of an attention: of queries, of keys and values, and how wide each is."""

    count: int
    kv_count: int
    width: int

    @property
    def group(self) -> int:
        """How many query heads share a key."""
        return self.count // self.kv_count


class TensorRTDialect(QuantisedDialect):
    """Standard operators of any opset from 19 on, products in the plan's type, all else in float32."""

    @property
    def compute(self) -> ir.DataType:
        return ir.DataType.FLOAT

    @property
    def product(self) -> ir.DataType:
        return TYPES[self.plan.compute]

    # Products

    def linear(self, rows: ir.Value, *modules: str, bias: bool = True) -> ir.Value:
        return self.cast(self.narrow_linear(rows, *modules, bias=bias), self.compute)

    def narrow_linear(self, rows: ir.Value, *modules: str, bias: bool = True, shrink: float = 1.0) -> ir.Value:
        """``linear``, left in the type of the product; without bias, on rows that are divided by ``shrink`` before."""
        self.enter(rows, *modules)
        names = [f"{module}.weight" for module in modules]
        if modules[0] in EXACT:
            operands = [rows, self.cast(self.matrix(*names), self.compute)]
        else:
            operands = [self.operand(rows, modules[0], shrink), self.weights(*names)]
        if bias:
            operands.append(self.cast(self.vector(*(f"{module}.bias" for module in modules)), operands[0].dtype))
        return self.op("Gemm", operands, {"transB": 1})

    def wide_linear(self, rows: ir.Value, module: str) -> ir.Value:
        if self.product != ir.DataType.FLOAT16:
            return self.linear(rows, module, bias=False)
        narrow = self.narrow_linear(rows, module, bias=False, shrink=_HEADROOM)
        return self.scale(self.cast(narrow, self.compute), _HEADROOM)

    def mix(self, rows: ir.Value, module: str) -> ir.Value:
        self.enter(rows, module)
        operands = [self.operand(rows, module), self.weight_columns(f"{module}.weight")]
        return self.cast(self.op("Gemm", operands, {"transB": 1}), self.compute)

    def patches(self, pixels: ir.Value, module: str, size: int, *, bias: bool = False) -> ir.Value:
        narrow = self.cast(pixels, self._convolving)
        return self.cast(super().patches(narrow, module, size, bias=bias), self.compute)

    def kernel(self, name: str) -> ir.Value:
        return self.cast(super().kernel(name), self._convolving)

    @property
    def _convolving(self) -> ir.DataType:
        """The type of convolutions: the standard has none in bfloat16 before opset 22."""
        return self.compute if self.product == ir.DataType.BFLOAT16 else self.product

    # Norms and activations

    def layer_norm_sum(self, rows: ir.Value, update: ir.Value, norm: Norm) -> tuple[ir.Value, ir.Value]:
        summed = self.add(rows, update)
        return summed, self.layer_norm(summed, norm)

    def rms_norm_sum(self, rows: ir.Value, update: ir.Value, norm: Norm) -> tuple[ir.Value, ir.Value]:
        summed = self.add(rows, update)
        return summed, self.rms_norm(summed, norm)

    def sigmoid_gate(self, value: ir.Value, alpha: float) -> ir.Value:
        return self.multiply(value, self.op("Sigmoid", [self.scale(value, alpha)]))

    # Attention

    def attention(self, rows: ir.Value, of: SelfAttention, sequence: int) -> ir.Value:
        heads = []
        for name, module in (("q_proj", of.queries), ("k_proj", of.keys), ("v_proj", of.values)):
            with self.scope(name):
                projected = self.narrow_linear(rows, module, bias=of.bias)
                apart = self.reshape(projected, -1, sequence, of.heads, of.width // of.heads)
                heads.append(self.transpose(apart, 0, 2, 1, 3))
        mixed = self.softmax_attention(*heads, None, Heads(of.heads, of.heads, of.width // of.heads))
        return self.reshape(self.transpose(mixed, 0, 2, 1, 3), -1, of.width)

    @abc.abstractmethod
    def softmax_attention(
        self, queries: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value | None, heads: Heads
    ) -> ir.Value:
        """softmax(QKᵀ/√D)·V, of ``[batch, heads, seq, D]`` on two of ``[batch, kv_heads, total, D]``; their types.

        ``mask`` is what ``mask`` makes, None where everything may be seen.
        """

    def mask(self, seen: ir.Value, heads: Heads) -> ir.Value:
        """What ``softmax_attention`` takes for ``seen``, bool ``[batch, 1, seq, total]``: what is added to scores.

        float32 ``[batch, 1, group · seq, total]``: the query heads that share a key stand one after the other.
        """
        shown, hidden = (self.constant(np.array(number, np.float32)) for number in (0.0, _HIDDEN))
        bias = self.op("Where", [seen, shown, hidden], dtype=ir.DataType.FLOAT)
        return bias if heads.group == 1 else self.op("Concat", [bias] * heads.group, {"axis": 2})

    def decomposed_attention(
        self, queries: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value | None, heads: Heads
    ) -> ir.Value:
        """``softmax_attention`` as two products, which are in the plan's type, and a softmax in float32."""
        # Scaled before the product: unscaled scores of half precision are what overflows first.
        scaled = self.cast(self.scale(self.cast(queries, self.compute), 1 / math.sqrt(heads.width)), queries.dtype)
        grouped = self.op("Reshape", [scaled, self.integers(0, heads.kv_count, -1, heads.width)])
        scores = self.cast(self.matmul(grouped, self.transpose(keys, 0, 1, 3, 2)), self.compute)
        weights = self.softmax(scores if mask is None else self.add(scores, mask))
        mixed = self.matmul(self.cast(weights, values.dtype), values)
        return self.op("Reshape", [mixed, self.integers(0, heads.count, -1, heads.width)])

    def query_key_value(self, rows: ir.Value, of: SelfAttention, cache: KVCache) -> list[ir.Value]:
        """Queries, keys and values of a call, ``[batch, heads, seq, D]`` each, by one product.

        The norms of queries and keys stand before any rotation, which is what comes next.
        """
        decoder = cache.decoder
        counts = decoder.heads, decoder.kv_heads, decoder.kv_heads
        with self.scope("qkv"):
            packed = self.sequences(self.narrow_linear(rows, of.queries, of.keys, of.values, bias=of.bias), cache)
            sizes = self.integers(*(count * decoder.head_dim for count in counts))
            parts = self.ops("Split", [packed, sizes], {"axis": 2}, outputs=(0, 1, 2))
            shapes = (self.integers(0, 0, count, decoder.head_dim) for count in counts)
            apart = (self.op("Reshape", list(pair)) for pair in zip(parts, shapes, strict=True))
            norms = (*of.norms, None) if of.norms else (None, None, None)
            normed = (self._head_norm(*pair) for pair in zip(apart, norms, strict=True))
            return [self.transpose(part, 0, 2, 1, 3) for part in normed]

    def _head_norm(self, value: ir.Value, norm: Norm | None) -> ir.Value:
        """The RMS norm over the last axis, in float32; ``value`` itself without one."""
        return self.cast(self.rms_norm(self.cast(value, self.compute), norm), value.dtype) if norm else value

    def past(self, decoder: Decoder, axes: Sequence[str | int]) -> tuple[tuple[ir.Value, ir.Value], ...]:
        """The graph inputs of the cache, key and value of each layer, in the type of the products."""
        dtype = self.plan.compute
        return tuple(
            tuple(self.input(f"past_key_values.{n}.{part}", axes, dtype) for part in ("key", "value"))
            for n in range(decoder.layers)
        )

    def rotary(self, decoder: Decoder, max_len: int) -> tuple[ir.Value, ir.Value]:
        """Cosines and sines ``[max_len, D / 2]``, float32."""
        cosines, sines = rotary_tables(decoder, max_len)
        return self.table("rotary.cos", cosines), self.table("rotary.sin", sines)

    def call_shape(self, embeds: ir.Value) -> ir.Value:
        """int64 ``[3]``: batch and sequence of this call, and -1."""
        batch = self.op("Shape", [embeds], {"start": 0, "end": 2}, dtype=ir.DataType.INT64)
        return self.op("Concat", [batch, self.integers(-1)], {"axis": 0})

    def call_length(self, shape: ir.Value) -> ir.Value:
        """seq of ``call_shape``, an int64 scalar."""
        return self.op("Gather", [shape, self.constant(np.array(1, np.int64))])

    def counting(self, count: ir.Value) -> ir.Value:
        """0, 1, … up to ``count``, an int64 scalar: int64 ``[count]``."""
        zero, one = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        return self.op("Range", [zero, count, one])

    def sequences(self, rows: ir.Value, cache: KVCache) -> ir.Value:
        """Rows as ``[batch, seq, width]``."""
        return self.op("Reshape", [rows, cache.shape])

    def rows_at(self, index: ir.Value, cache: KVCache, rows: Sequence[ir.Value]) -> list[ir.Value]:
        """Of each value the row ``index`` int64 ``[batch]`` of every sequence: ``[batch, width]``."""
        places = self.reshape(index, -1, 1)
        return [self.op("GatherND", [self.sequences(value, cache), places], {"batch_dims": 1}) for value in rows]


def decoder_heads(decoder: Decoder) -> Heads:
    """The heads of a language model."""
    return Heads(decoder.heads, decoder.kv_heads, decoder.head_dim)
