"""The modern TensorRT dialect: opset 24, for TensorRT from 10.15 on, TensorRT 11 and TensorRT-RTX.

The decoder's cache is a buffer of ``max_len`` positions per row, fixed at export: ``past_key_values.N.key`` and
``.value`` ``[batch, kv_heads, max_len, D]``. TensorScatter writes the call's keys and values at each row's own place,
and a runtime binds ``present.N.*`` to the very memory of ``past_key_values.N.*``. Beside it the decoder reads

    write_index  int64 [batch]  the positions a row holds before the call, which is where its first token goes
    lengths      int64 [batch]  how many of the call's tokens are the row's own, 1 to seq; the rest is padding

``write_index + seq`` must not exceed ``max_len``. Padding is written into the cache too, behind what is valid: no
position sees one that comes after it, and the next call writes over it. So a prompt may come whole, padded or in
chunks, and rows of any lengths decode together.

The mask is an explicit input of Attention, computed once per call: TensorRT reads ``nonpad_kv_seqlen`` and ignores it.
"""

from typing import ClassVar

import numpy as np
import onnx_ir as ir

from parrot_export.architecture import Decoder
from parrot_export.dialects.base import KVCache, Norm, SelfAttention
from parrot_export.dialects.tensorrt import Heads, TensorRTDialect, decoder_heads


class ModernDialect(TensorRTDialect):
    """RMSNormalization, RotaryEmbedding, TensorScatter and Attention."""

    opsets: ClassVar[dict[str, int]] = {"": 24}
    ir_version: ClassVar[int] = 12

    def rms_norm(self, rows: ir.Value, norm: Norm) -> ir.Value:
        inputs = [rows, self.vector(f"{norm.name}.weight")]
        return self.op("RMSNormalization", inputs, {"axis": -1, "epsilon": norm.epsilon})

    def softmax_attention(
        self, queries: ir.Value, keys: ir.Value, values: ir.Value, mask: ir.Value | None, heads: Heads
    ) -> ir.Value:
        if not self._has_kernel(heads):
            return self.decomposed_attention(queries, keys, values, mask, heads)
        return self.op("Attention", [queries, keys, values, *([mask] if mask else [])])

    def mask(self, seen: ir.Value, heads: Heads) -> ir.Value:
        return seen if self._has_kernel(heads) else super().mask(seen, heads)

    def _has_kernel(self, heads: Heads) -> bool:
        """Whether TensorRT compiles Attention: it has kernels for half precision only, and not for every width.

        Compiled with TensorRT-RTX 1.7 for SM80, SM89 and SM120: float16 and bfloat16 from 16 to 256; 8 and all of
        float32 are refused.
        """
        return self.product != ir.DataType.FLOAT and 16 <= heads.width <= 256

    def kv_cache(self, embeds: ir.Value, decoder: Decoder, max_len: int) -> KVCache:
        axes = ("batch", decoder.kv_heads, max_len, decoder.head_dim)
        layers = self.past(decoder, axes)
        write_index = self.input("write_index", ("batch",), "int64")
        lengths = self.input("lengths", ("batch",), "int64")
        shape = self.call_shape(embeds)
        with self.scope("positions"):
            positions = self.add(self.reshape(write_index, -1, 1), self.counting(self.call_length(shape)))
        with self.scope("mask"):
            places = self.counting(self.constant(np.array(max_len, np.int64)))
            seeing = self.op("Unsqueeze", [positions, self.integers(1, 3)])
            seen = self.op("GreaterOrEqual", [seeing, places], dtype=ir.DataType.BOOL)
            mask = self.mask(seen, decoder_heads(decoder))
        rotary = (self.cast(table, self.product) for table in self.rotary(decoder, max_len))
        return KVCache(decoder, shape, layers, (write_index, lengths, positions, mask, *rotary))

    def cached_attention(self, rows: ir.Value, of: SelfAttention, cache: KVCache, layer: int) -> ir.Value:
        write_index, _, positions, mask, cosines, sines = cache.controls
        queries, keys, values = self.query_key_value(rows, of, cache)
        queries, keys = (self.op("RotaryEmbedding", [v, cosines, sines, positions]) for v in (queries, keys))
        old_keys, old_values = cache.past[layer]
        keys = self.op("TensorScatter", [old_keys, keys, write_index], {"axis": 2})
        values = self.op("TensorScatter", [old_values, values, write_index], {"axis": 2})
        cache.present.append((keys, values))
        mixed = self.softmax_attention(queries, keys, values, mask, decoder_heads(cache.decoder))
        return self.reshape(self.transpose(mixed, 0, 2, 1, 3), -1, of.width)

    def last_positions(self, cache: KVCache, *rows: ir.Value) -> list[ir.Value]:
        with self.scope("last_position"):
            last = self.op("Sub", [cache.controls[1], self.integers(1)])
            return self.rows_at(last, cache, rows)
