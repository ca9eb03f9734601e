"""What learns in each stage (Table 13), and in ``extend``: the only place that writes ``requires_grad``."""

from functools import partial

import torch
from torch import nn

from .adapters import MARK

PARTS = {
    "vision": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "moe": "model.moe.",
    "llm": ("model.language_model.", "lm_head."),
}
STAGES = {1: ("projector",), 2: ("projector", "moe", "llm"), "extend": ("moe",)}


def set_trainable(model: nn.Module, stage: int | str, *, kept: int = 0) -> dict[str, int]:
    """Let the parts of ``stage`` learn and freeze the others; how many parameters learn, per part.

    Of the mixture the first ``kept`` experts and their rows of the router do not learn either. They lie in the same
    tensors as the others, so it is their gradient that is made zero, before anything adds it up: AdamW without decay
    then leaves every bit of them. Tied embeddings belong to the LLM. Where that has adapters (``add_adapters``), they
    alone of it learn. Raises ValueError for a stage that is not 1, 2 or "extend".
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage}; expected 1, 2 or 'extend'")
    counts = dict.fromkeys(STAGES[stage], 0)
    adapted = any(MARK in name for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        part = next(part for part, prefix in PARTS.items() if name.startswith(prefix))
        learns = part in counts and (part != "llm" or not adapted or MARK in name)
        parameter.requires_grad_(learns)
        if learns:
            counts[part] += parameter.numel()
            if part == "moe" and kept:
                parameter.register_hook(partial(_without_first, kept))
                counts[part] -= parameter.numel() // model.config.num_experts * kept
    return counts


def _without_first(kept: int, gradient: torch.Tensor) -> torch.Tensor:
    """``[E, …]`` with zeros for the first ``kept`` experts."""
    return torch.cat([torch.zeros_like(gradient[:kept]), gradient[kept:]])
