"""The classic TensorRT dialect: opset 19 (21 where int4 needs it), for the TensorRT 10.3 of today's Jetson images.

No fused operator: the root mean square norm, the rotary embedding, Gelu and the attention are written out. The cache
grows by concatenation: ``past_key_values.N.key`` and ``.value`` ``[batch, kv_heads, past_len, D]`` in, ``present.N.*``
of ``total_len = past_len + seq`` out, the call's keys behind the past's. Beside it the decoder reads

    attention_mask  int64 [batch, total_len]  1 at what is a row's own, past and call; 0 at padding
    position_ids    int64 [batch, seq]        the place of each of the call's tokens in its own row, padding excluded;
                                              any number up to max_len for padding

Rows of unequal lengths are padded on the right, and what was padding once stays masked: the next call's keys lie
behind it for every row. A first call has ``past_len`` 0. Every row has at least one token of its own in a call.
"""

import math

import numpy as np
import onnx_ir as ir

from parrot_export.architecture import Decoder
from parrot_export.dialects.base import KVCache, Norm, SelfAttention
from parrot_export.dialects.tensorrt import Heads, TensorRTDialect, decoder_heads


class ClassicDialect(TensorRTDialect):
    """Operators that stand in opset 19, and no newer."""

    @property
    def opsets(self) -> dict[str, int]:
        """Blocks of numbers that share a scale are what opset 21 brought; a graph without them needs 19."""
        return {"": 21 if any("block_size" in node.attributes for node in self._nodes) else 19}

    def rms_norm(self, rows: ir.Value, norm: Norm) -> ir.Value:
        mean = self.op("ReduceMean", [self.multiply(rows, rows), self.integers(-1)], {"keepdims": 1})
        root = self.op("Sqrt", [self.add(mean, self.number(norm.epsilon, mean))])
        return self.multiply(self.op("Div", [rows, root]), self.vector(f"{norm.name}.weight"))

    def gelu(self, value: ir.Value, approximate: str) -> ir.Value:
        if approximate == "tanh":
            cube = self.multiply(self.multiply(value, value), value)
            inner = self.scale(self.add(value, self.scale(cube, 0.044715)), math.sqrt(2 / math.pi))
            share = self.op("Tanh", [inner])
        else:
            share = self.op("Erf", [self.scale(value, math.sqrt(0.5))])
        return self.multiply(self.scale(value, 0.5), self.add(share, self.number(1.0, value)))

    def softmax_attention(
        self, queries: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value | None, heads: Heads
    ) -> ir.Value:
        return self.decomposed_attention(queries, keys, values, mask, heads)

    def kv_cache(self, embeds: ir.Value, decoder: Decoder, max_len: int) -> KVCache:
        axes = ("batch", decoder.kv_heads, "past_len", decoder.head_dim)
        layers = self.past(decoder, axes)
        own = self.input("attention_mask", ("batch", "total_len"), "int64")
        positions = self.input("position_ids", ("batch", "seq"), "int64")
        shape = self.call_shape(embeds)
        with self.scope("mask"):
            length = self.call_length(shape)
            total = self.op("Gather", [self.op("Shape", [own]), self.constant(np.array(1, np.int64))])
            past = self.op("Sub", [total, length])
            # A token sees what lies before it in the concatenation and is its row's own.
            seeing = self.op("Unsqueeze", [self.add(self.counting(length), past), self.integers(1)])
            before = self.op("GreaterOrEqual", [seeing, self.counting(total)], dtype=ir.DataType.BOOL)
            valid = self.op("Unsqueeze", [self.cast(own, ir.DataType.BOOL), self.integers(1, 2)])
            mask = self.mask(self.op("And", [before, valid]), decoder_heads(decoder))
        with self.scope("last_position"):
            call = self.op("Slice", [own, self.reshape(past, 1), self.reshape(total, 1), self.integers(1)])
            count = self.op("ReduceSum", [call, self.integers(1)], {"keepdims": 0})
            last = self.op("Sub", [count, self.integers(1)])
        with self.scope("rotary"):
            tables = self.rotary(decoder, max_len)
            gathered = (self.op("Gather", [table, positions]) for table in tables)
            cosines, sines = (self.op("Unsqueeze", [table, self.integers(1)]) for table in gathered)
        return KVCache(decoder, shape, layers, (mask, last, cosines, sines))

    def cached_attention(self, rows: ir.Value, of: SelfAttention, cache: KVCache, layer: int) -> ir.Value:
        mask, _, cosines, sines = cache.controls
        queries, keys, values = self.query_key_value(rows, of, cache)
        with self.scope("rotary"):
            queries, keys = (self._rotated(value, cosines, sines) for value in (queries, keys))
        pasts = zip(cache.past[layer], (keys, values), strict=True)
        keys, values = (self.op("Concat", list(pair), {"axis": 2}) for pair in pasts)
        cache.present.append((keys, values))
        mixed = self.softmax_attention(queries, keys, values, mask, decoder_heads(cache.decoder))
        return self.reshape(self.transpose(mixed, 0, 2, 1, 3), -1, of.width)

    def last_positions(self, cache: KVCache, *rows: ir.Value) -> list[ir.Value]:
        with self.scope("last_position"):
            return self.rows_at(cache.controls[1], cache, rows)

    def present_axes(self, past: ir.Value) -> tuple[str | int, ...]:
        batch, heads, _, width = past.shape
        return batch, heads, "total_len", width

    def _rotated(self, value: ir.Value, cosines: ir.Value, sines: ir.Value) -> ir.Value:
        """``[batch, heads, seq, D]``, of which the first half and the second turn together; computed in float32."""
        halves = self.ops("Split", [self.cast(value, self.compute)], {"axis": 3, "num_outputs": 2}, outputs=(0, 1))
        first, second = halves
        turned = (
            self.op("Sub", [self.multiply(first, cosines), self.multiply(second, sines)]),
            self.add(self.multiply(second, cosines), self.multiply(first, sines)),
        )
        return self.cast(self.op("Concat", list(turned), {"axis": 3}), value.dtype)
