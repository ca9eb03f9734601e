"""The language model's graph: embeddings and KV cache to the logits of the last position and the extended cache.

``inputs_embeds [batch, seq, C]`` and the dialect's cache inputs → ``logits [rows, vocabulary]`` float32, one row per
sequence or, where a dialect can give more, per position asked for, and ``present.N.key``, ``present.N.value``. One
graph serves prefill and decode, unless a plan has a second one for prompts that extends the cache alone, with other
kernels: all but a prompt's last position need no logits, and of the last layer nothing but keys and values.
"""

import onnx_ir as ir

from parrot_export.architecture import EMBEDDING, HEAD, LLM, Architecture, Decoder
from parrot_export.dialects.base import Dialect, KVCache, Norm, SelfAttention

ROOT = "/llm"
PREFILL_ROOT = "/llm_prefill"


def write_decoder(ops: Dialect, model: Architecture, max_len: int) -> None:
    """Qwen and LLaMA: pre-norm layers of grouped-query attention and SwiGLU, for at most ``max_len`` positions."""
    cache, normed = _write_layers(ops, model.decoder, max_len, logits=True)
    with ops.scope("lm_head"), ops.component("lm_head"):
        logits = ops.linear(normed, EMBEDDING if model.decoder.tied else HEAD, bias=False)
    ops.output("logits", logits, ("rows", model.decoder.vocabulary), "float32")
    ops.output_cache(cache)


def write_prefill(ops: Dialect, model: Architecture, max_len: int) -> None:
    """The same inputs and layers, to the extended cache alone."""
    cache, _ = _write_layers(ops, model.decoder, max_len, logits=False)
    ops.output_cache(cache)


def _write_layers(ops: Dialect, decoder: Decoder, max_len: int, *, logits: bool) -> tuple[KVCache, ir.Value]:
    """The cache after all layers; and, for ``logits``, the normed row of the last position of each sequence."""
    embeds = ops.input("inputs_embeds", ("batch", "seq", decoder.width))
    cache = ops.kv_cache(embeds, decoder, max_len)
    rows = ops.reshape(embeds, -1, decoder.width)
    normed = ops.rms_norm(rows, Norm(f"{LLM}.layers.0.input_layernorm", decoder.epsilon))
    for number in range(decoder.layers):
        name, last = f"{LLM}.layers.{number}", number + 1 == decoder.layers
        with ops.scope(f"layers.{number}"):
            with ops.scope("attn"), ops.unit(f"layers.{number}.attn"):
                mixed = ops.cached_attention(normed, _projections(name, decoder), cache, number)
                if last and not logits:
                    break
                if last:
                    # Only the last position is asked for, and nothing after the last attention looks at another.
                    mixed, rows = ops.last_positions(cache, mixed, rows)
                with ops.scope("o_proj"):
                    update = ops.linear(mixed, f"{name}.self_attn.o_proj", bias=decoder.output_bias)
            rows, normed = ops.rms_norm_sum(rows, update, Norm(f"{name}.post_attention_layernorm", decoder.epsilon))
            with ops.unit(f"layers.{number}.mlp"):
                update = _mlp(ops, normed, name, decoder)
            following = f"{LLM}.norm" if last else f"{LLM}.layers.{number + 1}.input_layernorm"
            rows, normed = ops.rms_norm_sum(rows, update, Norm(following, decoder.epsilon))
    return cache, normed


def _projections(name: str, decoder: Decoder) -> SelfAttention:
    """Layer ``name``'s queries, keys and values, with their norms where the model has them."""
    parts = (f"{name}.self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj"))
    norms = tuple(Norm(f"{name}.self_attn.{norm}", decoder.epsilon) for norm in ("q_norm", "k_norm"))
    width = decoder.heads * decoder.head_dim
    return SelfAttention(*parts, decoder.heads, width, decoder.qkv_bias, norms if decoder.qk_norm else None)


def _mlp(ops: Dialect, rows: ir.Value, name: str, decoder: Decoder) -> ir.Value:
    """down(activation(gate(x)) · up(x))."""
    with ops.scope("mlp"):
        with ops.scope("gate_proj"):
            gate = ops.activation(ops.linear(rows, f"{name}.mlp.gate_proj", bias=False), decoder.activation)
        with ops.scope("up_proj"):
            hidden = ops.multiply(gate, ops.linear(rows, f"{name}.mlp.up_proj", bias=False))
        with ops.scope("down_proj"):
            return ops.wide_linear(hidden, f"{name}.mlp.down_proj")
