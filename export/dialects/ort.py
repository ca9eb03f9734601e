"""The ``ort`` dialect: standard operators, and onnxruntime's fused ones where they pay (domain ``com.microsoft``).

The KV cache is a buffer of ``max_len`` positions per layer that ``GroupQueryAttention`` reads and extends. When a
runtime binds ``present.*`` to the buffer of ``past_key_values.*`` it is updated in place and nothing is copied.
``seqlens_k`` is each sequence's total valid length minus one, ``total_sequence_length`` the longest of them: both
count this call's tokens. A first call may be padded on the right; later calls of more than one token need batch 1.
``kept_positions`` says of how many positions at each sequence's end logits are wanted; one, unless it is given.
"""

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from parrot_export.architecture import Decoder
from parrot_export.dialects.base import KVCache, Norm, SelfAttention
from parrot_export.dialects.ort_products import MICROSOFT, OrtProducts
from parrot_export.dialects.rotary import rotary_tables
from parrot_runtime.errors import InputError


class OrtDialect(OrtProducts):
    """Operators of onnxruntime's CPU and CUDA providers, in an opset that the oldest one supported (1.22) reads."""

    opsets: ClassVar[dict[str, int]] = {"": 21, MICROSOFT: 1}

    def sigmoid_gate(self, value: ir.Value, alpha: float) -> ir.Value:
        return self.op("QuickGelu", [value], {"alpha": alpha}, domain=MICROSOFT)

    def layer_norm_sum(self, rows: ir.Value, update: ir.Value, norm: Norm) -> tuple[ir.Value, ir.Value]:
        # Two operators, not SkipLayerNormalization, which takes six times as long on the rows of a picture.
        summed = self.add(rows, update)
        return summed, self.layer_norm(summed, norm)

    def rms_norm_sum(self, rows: ir.Value, update: ir.Value, norm: Norm) -> tuple[ir.Value, ir.Value]:
        normed, summed = self.ops(
            "SkipSimplifiedLayerNormalization",
            [rows, update, self.vector(f"{norm.name}.weight")],
            {"epsilon": norm.epsilon},
            outputs=(0, 3),
            domain=MICROSOFT,
        )
        return summed, normed

    def rms_norm(self, rows: ir.Value, norm: Norm) -> ir.Value:
        # onnxruntime's own SimplifiedLayerNormalization stands in the standard domain without being standard, which
        # onnx's checker refuses. These six are what its optimiser fuses into it when it loads the graph.
        wide = self.cast(rows, ir.DataType.FLOAT)
        square = self.op("Pow", [wide, self.number(2.0, wide)])
        mean = self.op("ReduceMean", [square, self.integers(-1)], {"keepdims": 1})
        root = self.op("Sqrt", [self.add(mean, self.number(norm.epsilon, wide))])
        normed = self.cast(self.op("Div", [wide, root]), rows.dtype)
        return self.multiply(normed, self.vector(f"{norm.name}.weight"))

    def attention(self, rows: ir.Value, of: SelfAttention, sequence: int) -> ir.Value:
        projected = []
        for name, module in (("q_proj", of.queries), ("k_proj", of.keys), ("v_proj", of.values)):
            with self.scope(name):
                projected.append(self.reshape(self.linear(rows, module, bias=of.bias), -1, sequence, of.width))
        mixed = self.op("MultiHeadAttention", projected, {"num_heads": of.heads}, domain=MICROSOFT)
        return self.reshape(mixed, -1, of.width)

    def kv_cache(self, embeds: ir.Value, decoder: Decoder, max_len: int) -> KVCache:
        if decoder.head_dim % 16:
            raise InputError(
                f"the attention heads are {decoder.head_dim} wide; onnxruntime's attention wants a multiple of 16"
            )
        axes = ("batch", decoder.kv_heads, "max_len", decoder.head_dim)
        layers = tuple(
            (self.input(f"past_key_values.{n}.key", axes), self.input(f"past_key_values.{n}.value", axes))
            for n in range(decoder.layers)
        )
        lengths = self.input("seqlens_k", ("batch",), "int32"), self.input("total_sequence_length", (), "int32")
        batch = self.op("Shape", [embeds], {"start": 0, "end": 2}, dtype=ir.DataType.INT64)
        shape = self.op("Concat", [batch, self.integers(-1)], {"axis": 0})
        cosines, sines = rotary_tables(decoder, max_len)
        rotary = self.table("rotary.cos", cosines), self.table("rotary.sin", sines)
        return KVCache(decoder, shape, layers, (*lengths, *rotary))

    def cached_attention(self, rows: ir.Value, of: SelfAttention, cache: KVCache, layer: int) -> ir.Value:
        decoder = cache.decoder
        with self.scope("qkv"):
            if of.norms:
                projected = self._normed_projections(rows, of, cache)
            else:
                # One product: GroupQueryAttention takes queries, keys and values side by side.
                packed = self.linear(rows, of.queries, of.keys, of.values, bias=of.bias)
                projected = [self._sequences(packed, cache), None, None]
        mixed, *present = self.ops(
            "GroupQueryAttention",
            [*projected, *cache.past[layer], *cache.controls],
            {"num_heads": decoder.heads, "kv_num_heads": decoder.kv_heads, "do_rotary": 1},
            outputs=(0, 1, 2),
            domain=MICROSOFT,
        )
        cache.present.append(tuple(present))
        return self.reshape(mixed, -1, of.width)

    def _normed_projections(self, rows: ir.Value, of: SelfAttention, cache: KVCache) -> list[ir.Value]:
        """Queries, keys and values ``[batch, seq, width]``; before any rotation, the first two pass their norms."""
        decoder = cache.decoder
        packed = self._sequences(self.linear(rows, of.queries, of.keys, of.values, bias=of.bias), cache)
        widths = [count * decoder.head_dim for count in (decoder.heads, decoder.kv_heads, decoder.kv_heads)]
        parts = self.ops("Split", [packed, self.integers(*widths)], {"axis": 2}, outputs=(0, 1, 2))
        for number, norm in enumerate(of.norms):
            heads = self.rms_norm(self.reshape(parts[number], 0, 0, -1, decoder.head_dim), norm)
            parts[number] = self.reshape(heads, 0, 0, widths[number])
        return parts

    def last_positions(self, cache: KVCache, *rows: ir.Value) -> list[ir.Value]:
        # The past is what the longest sequence has beyond this call; a row's last valid token lies seqlens_k - past
        # into the call. Bounded, because in a ragged step of one token a shorter sequence has less past than that.
        zero, one = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        with self.scope("last_positions"):
            kept = self.option("kept_positions", 1)
            seqlens, total = (self.cast(value, ir.DataType.INT64) for value in cache.controls[:2])
            batch, sequence = (self.op("Gather", [cache.shape, number]) for number in (zero, one))
            past = self.op("Sub", [total, sequence])
            last = self.reshape(self.op("Sub", [seqlens, past]), -1, 1)
            before = self.op("Range", [self.op("Sub", [one, kept]), one, one])
            place = self.op("Max", [self.add(last, before), zero])
            place = self.op("Min", [place, self.op("Sub", [sequence, one])])
            first = self.multiply(self.op("Range", [zero, batch, one]), sequence)
            place = self.reshape(self.add(self.reshape(first, -1, 1), place), -1)
            return [self.op("Gather", [value, place]) for value in rows]

    def _sequences(self, rows: ir.Value, cache: KVCache) -> ir.Value:
        """Rows as ``[batch, seq, width]``."""
        return self.op("Reshape", [rows, cache.shape])
