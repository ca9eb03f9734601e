"""Tiny random Parrot models: 17 image tokens, odd widths apart, nothing divisible by chance."""

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, Qwen2Config, Qwen3Config

from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration

TEXTS = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


def tiny_config(**settings) -> ParrotConfig:
    vision = CLIPVisionConfig(
        hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=7
    )
    text = TEXTS[settings.pop("text", "qwen2")](
        vocab_size=97,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=settings.pop("tie_word_embeddings", True),
    )
    return ParrotConfig(
        vision_config=vision, text_config=text, **({"expert_intermediate_size": 15, "alpha": 0.7} | settings)
    )


def tiny_model(**settings) -> ParrotForConditionalGeneration:
    torch.manual_seed(3)
    model = ParrotForConditionalGeneration(tiny_config(**settings)).eval()
    # Larger than the initial 0.02, so that experts and attention make a difference that a tolerance can see.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def prompts(*layouts: str, length: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask from layouts such as ``"5i9"``: five words, an image, nine words; padded to ``length``."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.zeros(len(layouts), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, layout in enumerate(layouts):
        pieces = []
        for part in layout.replace("i", " i ").split():
            pieces += [-200] * 17 if part == "i" else torch.randint(1, 97, (int(part),), generator=generator).tolist()
        where = slice(length - len(pieces), length) if left else slice(0, len(pieces))
        ids[row, where] = torch.tensor(pieces)
        mask[row, where] = 1
    return ids, mask


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(5))
