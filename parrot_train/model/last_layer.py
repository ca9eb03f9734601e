"""The language model's last layer, which need not be whole: behind its attention no position looks at another.

Where only some positions' logits are wanted, as in training, its second residual, norm and MLP are computed for these
alone, and so is the model's last norm.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

ROWS = "wanted_rows"
"""The argument of a language model, bool ``[B, T]``, that says which rows are wanted."""


class _RowsWanted:
    """Norm, attention, norm, MLP, each pair within a residual, as all three families have it."""

    def forward(self, hidden_states: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """``[B, T, C]`` → the same, or ``[rows, C]`` in reading order."""
        rows = arguments.pop(ROWS, None)
        if rows is None:
            return super().forward(hidden_states, **arguments)
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **arguments)
        residual = (hidden_states + attended)[rows]
        return residual + self.mlp(self.post_attention_layernorm(residual))


class LlamaLastLayer(_RowsWanted, LlamaDecoderLayer):
    """LLaMA's."""


class Qwen2LastLayer(_RowsWanted, Qwen2DecoderLayer):
    """Qwen2's."""


class Qwen3LastLayer(_RowsWanted, Qwen3DecoderLayer):
    """Qwen3's."""


LAST_LAYERS = {
    LlamaDecoderLayer: LlamaLastLayer,
    Qwen2DecoderLayer: Qwen2LastLayer,
    Qwen3DecoderLayer: Qwen3LastLayer,
}


def let_choose_rows(language_model: PreTrainedModel) -> None:
    """Let ``language_model`` take ROWS: its last hidden state is then ``[rows, C]``."""
    layer = language_model.layers[-1]
    layer.__class__ = LAST_LAYERS[type(layer)]  # the same weights, and more to be asked for
