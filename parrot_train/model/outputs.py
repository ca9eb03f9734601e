"""What the model classes return."""

from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput


@dataclass
class ParrotModelOutput(ModelOutput):
    """What the model returns below its output layer: ``last_hidden_state`` ``[B, T, C]``, ``routing`` as below."""

    last_hidden_state: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    routing: torch.Tensor | None = None


@dataclass
class ParrotCausalLMOutput(ModelOutput):
    """``loss`` float32 scalar, ``logits`` ``[B, T, vocabulary]``, ``routing`` float32 ``[N, E]``.

    Which of them are there is said at ``ParrotForConditionalGeneration.forward``.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    routing: torch.Tensor | None = None
