"""What learns in each stage (Table 13): the only place that writes ``requires_grad``."""

from torch import nn

PARTS = {
    "vision": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "moe": "model.moe.",
    "llm": ("model.language_model.", "lm_head."),
}
STAGES = {1: ("projector",), 2: ("projector", "moe", "llm")}


def set_trainable(model: nn.Module, stage: int) -> dict[str, int]:
    """Let the parts of ``stage`` learn and freeze the others; how many parameters learn, per part.

    Tied embeddings belong to the LLM. Raises ValueError for a stage that is not 1 or 2.
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage}; expected 1 or 2")
    counts = dict.fromkeys(STAGES[stage], 0)
    for name, parameter in model.named_parameters():
        part = next(part for part, prefix in PARTS.items() if name.startswith(prefix))
        parameter.requires_grad_(part in counts)
        if part in counts:
            counts[part] += parameter.numel()
    return counts
