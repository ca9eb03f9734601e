"""The numbers of a model that its memory and its FLOPs depend on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parrot_train.model import ParrotConfig


@dataclass(frozen=True)
class Sizes:
    """A model in one of the two stages. Widths in numbers, parameters counted on the meta device.

    ``width`` C, ``inner`` I, ``query`` and ``key`` (heads times head width), ``layers`` L and ``vocabulary`` V are the
    language model's; ``vision_rows`` are the encoder's positions, class token included; ``expert_inputs`` says how many
    projections an expert has on its input (2 for SwiGLU).
    """

    trained: int
    frozen: int
    language_model_learns: bool
    image_tokens: int
    vision_width: int
    vision_inner: int
    vision_layers: int
    vision_rows: int
    image_patches: int
    patch_numbers: int
    width: int
    inner: int
    query: int
    key: int
    heads: int
    key_heads: int
    layers: int
    vocabulary: int
    qk_norm: bool
    experts: int
    expert_inner: int
    expert_inputs: int

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of one layer of the language model."""
        return 2 * self.width * (self.query + self.key) + 3 * self.width * self.inner

    @property
    def expert_weights(self) -> int:
        """Numbers in one projection of all experts together: E times C times the width inside."""
        return self.experts * self.width * self.expert_inner


def sizes(config: "ParrotConfig", stage: int) -> Sizes:
    """The sizes of ``config`` where stage 1 or 2 decides what learns (Table 13)."""
    import torch

    from parrot_train.model import ParrotForConditionalGeneration
    from parrot_train.model.trainable import set_trainable

    with torch.device("meta"):
        model = ParrotForConditionalGeneration(config)
    trained = sum(set_trainable(model, stage).values())
    vision, text = config.vision_config, config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Sizes(
        trained=trained,
        frozen=sum(parameter.numel() for parameter in model.parameters()) - trained,
        language_model_learns=stage == 2,
        image_tokens=config.image_tokens,
        vision_width=vision.hidden_size,
        vision_inner=vision.intermediate_size,
        vision_layers=config.vision_layers,
        vision_rows=(vision.image_size // vision.patch_size) ** 2 + config.has_class_token,
        image_patches=(vision.image_size // vision.patch_size) ** 2,
        patch_numbers=3 * vision.patch_size**2,
        width=text.hidden_size,
        inner=text.intermediate_size,
        query=text.num_attention_heads * head,
        key=text.num_key_value_heads * head,
        heads=text.num_attention_heads,
        key_heads=text.num_key_value_heads,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        qk_norm=text.model_type == "qwen3",
        experts=config.num_experts,
        expert_inner=config.expert_intermediate_size,
        expert_inputs=2 if config.expert_kind == "swiglu" else 1,
    )
