"""Attention for short sequences on a CPU: three batched products instead of the flash kernel.

Measured on two Zen 4 cores, torch 2.13, bf16, 32 × 4 heads × 276 positions × 64, forward and backward: torch's flash
kernel 105 ms, this 40 ms, which is a quarter of a whole nano step. It holds the scores of a layer in memory, so long
sequences stay with the kernel. Scores are rounded to bf16 before the softmax, as in transformers' own eager attention.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "parrot_short"
LONGEST = 512


def use_short_attention(model: PreTrainedModel) -> None:
    """Let ``model`` attend this way from now on; nothing of it is saved with the model."""
    AttentionInterface.register(NAME, short_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def short_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface.

    Args:
        query: ``[B, H, T, D]``.
        key: ``[B, K, S, D]``, K dividing H.
        value: ``[B, K, S, D]``; its dtype is that of the products.
        attention_mask: bool ``[B or 1, 1, T, S]``, True where attended; None means causal.

    Returns:
        ``[B, T, H, D]`` and no weights.
    """
    batch, heads, length, width = query.shape
    if length > LONGEST or length != key.shape[2] or dropout or not module.is_causal:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **settings)
    scaling = width**-0.5 if scaling is None else scaling
    # The heads that share a key stand together, so one product serves them and no key is repeated.
    rows = batch * key.shape[1]
    grouped = (query * scaling).to(value.dtype).reshape(rows, -1, width)
    scores = torch.bmm(grouped, key.to(value.dtype).reshape(rows, length, width).transpose(1, 2))
    scores = scores.view(batch, heads, length, length)
    if attention_mask is None:
        attention_mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    bias = torch.zeros(attention_mask.shape, dtype=value.dtype, device=query.device)
    bias.masked_fill_(~attention_mask, torch.finfo(value.dtype).min)
    weights = torch.softmax(scores + bias, dim=-1).view(rows, -1, length)
    mixed = torch.bmm(weights, value.reshape(rows, length, width))
    return mixed.view(batch, heads, length, width).transpose(1, 2).contiguous(), None
