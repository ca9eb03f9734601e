"""The numbers of a model that its memory and its FLOPs depend on."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from parrot_train.config import LoraConfig

if TYPE_CHECKING:
    from parrot_train.model import ParrotConfig


MLP_LINEARS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Sizes:
    """A model in one of the two stages. Widths in numbers, parameters counted on the meta device.

    ``width`` C, ``inner`` I, ``query`` and ``key`` (heads times head width), ``layers`` L and ``vocabulary`` V are the
    language model's; ``vision_rows`` are the encoder's positions, class token included; ``expert_inputs`` says how many
    projections an expert has on its input (2 for SwiGLU), and ``tied`` whether the output layer is the word embeddings.
    With ``lora`` the language model's adapters learn in its place.
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
    tied: bool
    lora: LoraConfig | None

    @property
    def adapted(self) -> dict[str, tuple[int, int]]:
        """Of a layer's linear layers those that have an adapter, each with its width of input and output."""
        widths = {
            "q_proj": (self.width, self.query),
            "k_proj": (self.width, self.key),
            "v_proj": (self.width, self.key),
            "o_proj": (self.query, self.width),
            "gate_proj": (self.width, self.inner),
            "up_proj": (self.width, self.inner),
            "down_proj": (self.inner, self.width),
        }
        return {name: widths[name] for name in self.lora.targets} if self.lora else {}

    @property
    def adapter_weights(self) -> int:
        """Numbers in the adapters of one layer: A ``[r, in]`` and B ``[out, r]`` of each."""
        return sum(self.lora.rank * (wide + out) for wide, out in self.adapted.values())

    @property
    def mlp_adapter_weights(self) -> int:
        """Those of them that stand in its MLP."""
        return sum(self.lora.rank * (wide + out) for name, (wide, out) in self.adapted.items() if name in MLP_LINEARS)

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of one layer of the language model."""
        return 2 * self.width * (self.query + self.key) + self.mlp_weights

    @property
    def mlp_weights(self) -> int:
        """Those of them in its MLP."""
        return 3 * self.width * self.inner

    @property
    def expert_weights(self) -> int:
        """Numbers in one projection of all experts together: E times C times the width inside."""
        return self.experts * self.width * self.expert_inner


def sizes(config: "ParrotConfig", stage: int, lora: LoraConfig | None = None) -> Sizes:
    """The sizes of ``config`` where stage 1 or 2 decides what learns (Table 13), in stage 2 beside ``lora``."""
    import torch

    from parrot_train.model import ParrotForConditionalGeneration
    from parrot_train.model.trainable import set_trainable

    with torch.device("meta"):
        model = ParrotForConditionalGeneration(config)
    counts = set_trainable(model, stage)
    lora = lora if stage == 2 and lora and lora.rank else None
    trained = sum(count for part, count in counts.items() if part != "llm" or not lora)
    vision, text = config.vision_config, config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    found = Sizes(
        trained=trained,
        frozen=sum(parameter.numel() for parameter in model.parameters()) - trained,
        language_model_learns=stage == 2 and not lora,
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
        tied=bool(config.tie_word_embeddings),
        lora=lora,
    )
    return replace(found, trained=trained + found.layers * found.adapter_weights)
