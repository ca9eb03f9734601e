"""ParrotConfig: every number that decides the shape of a Parrot model."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

# Model types, and what is published under them.
LANGUAGE_MODELS = {"qwen2": "Qwen1.5, Qwen2, Qwen2.5", "qwen3": "Qwen3", "llama": "LLaMA, Vicuna"}
VISION_ENCODERS = {
    "clip_vision_model": "CLIP",
    "chinese_clip_vision_model": "Chinese-CLIP",
    "siglip_vision_model": "SigLIP",
}
WITHOUT_CLASS_TOKEN = ("siglip_vision_model",)


@strict
class ParrotConfig(PreTrainedConfig):
    """Configuration of vision encoder → projector → text-guided mixture of experts → language model.

    Args:
        vision_config: configuration of one of ``VISION_ENCODERS``, or a dict of its fields (CLIP without a
            ``model_type``).
        text_config: configuration of one of ``LANGUAGE_MODELS``, or a dict of its fields (Qwen2 without a
            ``model_type``).
        projector_hidden_act: activation between the projector's two Linear layers.
        vision_feature_layer: which hidden state of the vision encoder is used, as an index into its
            ``num_hidden_layers + 1`` hidden states (the first is the embeddings' output). Later layers are left out.
        vision_feature_select: with ``cls_patch`` the class token is kept, and stands first; with ``patch`` it is
            dropped (LLaVA), or the encoder has none (SigLIP). The router's query is the class token or, where there is
            none, the mean of the patches.
        num_experts: E. 0 is LLaVA: the model then has no router and no experts at all.
        expert_kind: ``mlp`` is two Linear with SiLU (paper, §3.3), ``swiglu`` bias-free gate/up/down (released code).
        expert_intermediate_size: I, the hidden width of an expert; the language model's width when not given.
        residual: ``paper`` is G = H + α·M (Eq. 5), ``released`` is M + α·H (the released checkpoints).
        alpha: the α of either form.
        image_token_id: marks an image position in ``input_ids``; negative, so that no text can spell it.
        tie_word_embeddings: the language model's output layer is its word embeddings. True here or in ``text_config``
            sets both.

    Raises huggingface_hub's StrictDataclassError, which names the field, for a value of another type or out of range.
    """

    model_type = "parrot"
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(AutoConfig, model_type="clip_vision_model"),
        "text_config": SubConfigSpec(AutoConfig, model_type="qwen2"),
    }
    keys_to_ignore_at_inference = ["past_key_values", "routing"]  # noqa: RUF012

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projector_hidden_act: str = "gelu"
    vision_feature_layer: int = -2
    vision_feature_select: Literal["cls_patch", "patch"] = "cls_patch"
    num_experts: int = 6
    expert_kind: Literal["mlp", "swiglu"] = "mlp"
    expert_intermediate_size: int | None = None
    residual: Literal["paper", "released"] = "paper"
    alpha: float = 1.0
    image_token_id: int = -200
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        check_kind(self.text_config, "text_config", LANGUAGE_MODELS)
        check_kind(self.vision_config, "vision_config", VISION_ENCODERS)
        super().__post_init__(**kwargs)
        if self.expert_intermediate_size is None:
            self.expert_intermediate_size = self.text_config.hidden_size
        self.tie_word_embeddings = self.tie_word_embeddings or self.text_config.tie_word_embeddings
        self.text_config.tie_word_embeddings = self.tie_word_embeddings

    def validate_sizes(self) -> None:
        """Run by ``@strict`` after construction: values that fit their type but describe no model."""
        states = self.vision_config.num_hidden_layers + 1
        if not -states <= self.vision_feature_layer < states:
            raise ValueError(
                f"vision_feature_layer is {self.vision_feature_layer}, but the vision encoder has {states} hidden "
                f"states: give a number from {-states} to {states - 1}"
            )
        if self.keeps_class_token and not self.has_class_token:
            raise ValueError(
                f"vision_feature_select is 'cls_patch', but a {self.vision_config.model_type} has no class token; give "
                "'patch'"
            )
        if self.num_experts < 0:
            raise ValueError(f"num_experts is {self.num_experts}; give 0 (LLaVA) or more")
        if self.expert_intermediate_size < 1:
            raise ValueError(f"expert_intermediate_size is {self.expert_intermediate_size}; give 1 or more")
        if self.image_token_id >= 0:
            raise ValueError(f"image_token_id is {self.image_token_id}, a vocabulary row; give a negative number")

    @property
    def image_tokens(self) -> int:
        """P, the positions one image takes in the language model: its patches, and the class token if it is kept."""
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2 + self.keeps_class_token

    @property
    def has_class_token(self) -> bool:
        """Whether the vision encoder has a class token, which then stands first."""
        return self.vision_config.model_type not in WITHOUT_CLASS_TOKEN

    @property
    def keeps_class_token(self) -> bool:
        """Whether the class token is among the image's features."""
        return self.vision_feature_select == "cls_patch"

    @property
    def vision_layers(self) -> int:
        """How many layers of the vision encoder are computed to reach ``vision_feature_layer``."""
        return self.vision_feature_layer % (self.vision_config.num_hidden_layers + 1)


def check_kind(config: dict | PreTrainedConfig | None, field: str, known: dict[str, str]) -> None:
    """Raise ValueError, which names what is ``known``, for a configuration of another model type."""
    found = config.get("model_type") if isinstance(config, dict) else getattr(config, "model_type", None)
    if found is not None and found not in known:
        supported = "; ".join(f"'{kind}' ({names})" for kind, names in known.items())
        raise ValueError(f"{field} is of model_type '{found}'; supported are {supported}")
