"""The model's shape as plain data, and the tensors a checkpoint of that shape must hold.

Graphs are authored from these dataclasses and from nothing else, so a family of checkpoints is supported by saying how
its configuration becomes an ``Architecture``. Tensors go by the names of Parrot's own state dict throughout.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from parrot_runtime.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from parrot_train.model.configuration import ParrotConfig

VISION = "model.vision_tower.vision_model"
PROJECTOR = "model.multi_modal_projector"
MOE = "model.moe"
LLM = "model.language_model"
EMBEDDING = f"{LLM}.embed_tokens"
HEAD = "lm_head"

Shapes = dict[str, tuple[int, ...]]

# Language models, by model type, that are built so without their configuration saying it.
_QKV_BIAS = ("qwen2",)
_QK_NORM = ("qwen3",)
_SIGLIP = "siglip_vision_model"


@dataclass(frozen=True)
class Vision:
    """A vision encoder of which the first ``layers_used`` of ``layers`` layers are computed.

    ``class_token`` tells whether it has one, and ``class_token_kept`` whether that is among the features; ``pre_norm``
    is a norm before the layers, ``patch_bias`` a bias on the product per patch.
    """

    image_size: int
    patch_size: int
    channels: int
    width: int
    inner: int
    layers: int
    layers_used: int
    heads: int
    activation: str
    epsilon: float
    class_token: bool
    class_token_kept: bool
    pre_norm: bool
    patch_bias: bool

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def positions(self) -> int:
        """Rows inside the encoder: one per patch, and the class token, which stands first."""
        return self.patches + self.class_token

    @property
    def tokens(self) -> int:
        """P, rows among the features: without the class token where it is dropped."""
        return self.patches + self.class_token_kept


@dataclass(frozen=True)
class Experts:
    """The text-guided mixture: E experts of hidden width ``inner``; see the model's documentation for the equations."""

    count: int
    kind: Literal["mlp", "swiglu"]
    inner: int
    residual: Literal["paper", "released"]
    alpha: float


@dataclass(frozen=True)
class Decoder:
    """A Qwen or LLaMA language model of width C.

    ``qkv_bias`` and ``output_bias`` tell which of the attention's products have one; with ``qk_norm`` queries and keys
    pass an RMS norm per head before the rotary embedding; ``tied`` when the output layer is the word embeddings.
    """

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    activation: str
    epsilon: float
    rope_theta: float
    max_positions: int
    qkv_bias: bool
    output_bias: bool
    qk_norm: bool
    tied: bool


@dataclass(frozen=True)
class Architecture:
    """The whole model; ``experts`` is None for a model without the mixture (LLaVA)."""

    vision: Vision
    projector_activation: str
    experts: Experts | None
    decoder: Decoder


def from_config(config: "ParrotConfig", *, where: str) -> Architecture:
    """The architecture ``config`` describes; ``where`` names its file in errors.

    Raises InputError for what the graphs cannot express: other rotary embeddings than the plain one, sliding windows.
    """
    experts = None
    if config.num_experts:
        experts = Experts(
            config.num_experts, config.expert_kind, config.expert_intermediate_size, config.residual, config.alpha
        )
    vision = _vision(config)
    return Architecture(vision, config.projector_hidden_act, experts, _decoder(config, where))


def _vision(parrot: "ParrotConfig") -> Vision:
    config, siglip = parrot.vision_config, parrot.vision_config.model_type == _SIGLIP
    return Vision(
        image_size=config.image_size,
        patch_size=config.patch_size,
        channels=config.num_channels,
        width=config.hidden_size,
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        layers_used=parrot.vision_layers,
        heads=config.num_attention_heads,
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        class_token=parrot.has_class_token,
        class_token_kept=parrot.keeps_class_token,
        pre_norm=not siglip,
        patch_bias=siglip,
    )


def _decoder(config: "ParrotConfig", where: str) -> Decoder:
    text = config.text_config
    if getattr(text, "use_sliding_window", False) and "sliding_attention" in text.layer_types:
        raise InputError(f"{where}: sliding-window attention cannot be exported; expected use_sliding_window false")
    if getattr(text, "mlp_bias", False):
        raise InputError(f"{where}: biases inside the language model's MLP cannot be exported; expected mlp_bias false")
    # Qwen2 has biases on queries, keys and values whatever its configuration says; the others say it, for all four.
    every_bias = text.model_type not in _QKV_BIAS and text.attention_bias
    return Decoder(
        width=text.hidden_size,
        inner=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        activation=text.hidden_act,
        epsilon=text.rms_norm_eps,
        rope_theta=_rope_theta(text, where),
        max_positions=text.max_position_embeddings,
        qkv_bias=every_bias or text.model_type in _QKV_BIAS,
        output_bias=every_bias,
        qk_norm=text.model_type in _QK_NORM,
        tied=config.tie_word_embeddings,
    )


def _rope_theta(text: "PreTrainedConfig", where: str) -> float:
    """The base of the rotary embedding: ``rope_parameters`` in transformers 5, ``rope_theta`` before it."""
    parameters = getattr(text, "rope_parameters", None) or {"rope_theta": getattr(text, "rope_theta", None)}
    kind = parameters.get("rope_type", "default")
    if kind != "default":
        raise InputError(f"{where}: rope_type '{kind}' cannot be exported; expected the plain rotary embedding")
    if not parameters.get("rope_theta"):
        raise InputError(f"{where}: no rope_theta in the language model's configuration; add it")
    return float(parameters["rope_theta"])


def tensor_shapes(model: Architecture) -> tuple[Shapes, Shapes]:
    """Every tensor of such a model as name → shape: those an export reads, and those it may find and does not need."""
    needed, spare = _vision_shapes(model.vision)
    width, vision = model.decoder.width, model.vision.width
    needed |= _linear(f"{PROJECTOR}.linear_1", width, vision) | _linear(f"{PROJECTOR}.linear_2", width, width)
    if model.experts:
        needed |= _expert_shapes(model.experts, width)
    needed |= _decoder_shapes(model.decoder)
    head = {f"{HEAD}.weight": (model.decoder.vocabulary, width)}
    return (needed, spare | head) if model.decoder.tied else (needed | head, spare)


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _vision_shapes(vision: Vision) -> tuple[Shapes, Shapes]:
    width, patch, embeddings = vision.width, vision.patch_size, f"{VISION}.embeddings"
    needed: Shapes = {
        f"{embeddings}.patch_embedding.weight": (width, vision.channels, patch, patch),
        f"{embeddings}.position_embedding.weight": (vision.positions, width),
    }
    needed |= {f"{embeddings}.patch_embedding.bias": (width,)} if vision.patch_bias else {}
    needed |= {f"{embeddings}.class_embedding": (width,)} if vision.class_token else {}
    needed |= _norm(f"{VISION}.pre_layrnorm", width) if vision.pre_norm else {}
    spare = _norm(f"{VISION}.post_layernorm", width)
    for number in range(vision.layers):
        layer = f"{VISION}.encoder.layers.{number}"
        shapes = _norm(f"{layer}.layer_norm1", width) | _norm(f"{layer}.layer_norm2", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.self_attn.{projection}", width, width)
        shapes |= _linear(f"{layer}.mlp.fc1", vision.inner, width) | _linear(f"{layer}.mlp.fc2", width, vision.inner)
        (needed if number < vision.layers_used else spare).update(shapes)
    return needed, spare


def _expert_shapes(experts: Experts, width: int) -> Shapes:
    count, inner, stack = experts.count, experts.inner, f"{MOE}.experts"
    shapes: Shapes = {f"{MOE}.router.weight": (count, width)}
    if experts.kind == "mlp":
        return shapes | {
            f"{stack}.fc1.weight": (count, inner, width),
            f"{stack}.fc1.bias": (count, inner),
            f"{stack}.fc2.weight": (count, width, inner),
            f"{stack}.fc2.bias": (count, width),
        }
    return shapes | {
        f"{stack}.gate_proj.weight": (count, inner, width),
        f"{stack}.up_proj.weight": (count, inner, width),
        f"{stack}.down_proj.weight": (count, width, inner),
    }


def _decoder_shapes(decoder: Decoder) -> Shapes:
    width, inner = decoder.width, decoder.inner
    queries, keys = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    shapes: Shapes = {f"{EMBEDDING}.weight": (decoder.vocabulary, width), f"{LLM}.norm.weight": (width,)}
    for number in range(decoder.layers):
        layer = f"{LLM}.layers.{number}"
        shapes |= {f"{layer}.input_layernorm.weight": (width,), f"{layer}.post_attention_layernorm.weight": (width,)}
        for projection, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            shapes |= _linear(f"{layer}.self_attn.{projection}", outputs, width, bias=decoder.qkv_bias)
        shapes |= _linear(f"{layer}.self_attn.o_proj", width, queries, bias=decoder.output_bias)
        if decoder.qk_norm:
            shapes |= {f"{layer}.self_attn.{norm}.weight": (decoder.head_dim,) for norm in ("q_norm", "k_norm")}
        for projection in ("gate_proj", "up_proj"):
            shapes |= _linear(f"{layer}.mlp.{projection}", inner, width, bias=False)
        shapes |= _linear(f"{layer}.mlp.down_proj", width, inner, bias=False)
    return shapes


def side_by_side(module: str) -> bool:
    """Whether experts' products by ``module`` are one over all of them: ``[E, C, I]`` read as ``[C, E·I]``."""
    return module.startswith(MOE) and module.endswith((".fc2", ".down_proj"))
