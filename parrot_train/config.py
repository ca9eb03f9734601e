"""The training configuration: frozen dataclasses whose defaults are the paper's rules (Table 13).

:mod:`parrot_train.config_files` reads and writes them.
"""

import re
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from parrot_runtime.languages import ISO_639_1

T = TypeVar("T")

NANO = "nano"
"""In ``data.stage1``, ``stage2``, ``extend``: the picture world drawn by code, written when it is first needed."""

PACKAGE_NANO = "package:nano"
"""In ``backbones``: the small pretrained encoder and language model shipped with this package."""


EXTEND = "extend"
Stage = Literal[1, 2, "extend"]
"""The paper's two stages, and the one that adds languages to their result."""


def setting(default: T, doc: str) -> T:
    """A dataclass field with its documentation, which ``parrot-train config`` prints beside the value."""
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class BackboneConfig:
    """Where the two pretrained halves come from."""

    vision: str = setting(
        PACKAGE_NANO, "vision encoder (CLIP, Chinese-CLIP, SigLIP): folder, hub name (cached), or package:nano"
    )
    llm: str = setting(
        PACKAGE_NANO, "language model (Qwen2, Qwen3, LLaMA architecture): folder, hub name (cached), or package:nano"
    )


@dataclass(frozen=True)
class ModelConfig:
    """What stands between the backbones. The image size, the widths and the depths are the backbones' own."""

    experts: int = setting(6, "experts of the mixture added in stage 2; 0 is plain LLaVA")
    expert_kind: Literal["mlp", "swiglu"] = setting("mlp", "mlp: two Linear with SiLU (paper); swiglu: released code")
    expert_intermediate_size: int | None = setting(
        None, "width inside an expert; null takes the language model's width"
    )
    residual: Literal["paper", "released"] = setting("paper", "paper: G = H + alpha*M; released: M + alpha*H")
    alpha: float = setting(1.0, "weight of the mixture (paper) or of the residual (released)")

    def __post_init__(self) -> None:
        width = self.expert_intermediate_size
        _require(self.experts >= 0, "experts", self.experts, "0 or more")
        _require(width is None or width >= 1, "expert_intermediate_size", width, "null, or 1 or more")


@dataclass(frozen=True)
class DataConfig:
    """The conversations and how they are read."""

    stage1: tuple[str, ...] = setting((NANO,), "LLaVA JSON files of stage 1, or nano")
    stage2: tuple[str, ...] = setting((NANO,), "LLaVA JSON files of stage 2, or nano")
    extend: tuple[str, ...] = setting((NANO,), "LLaVA JSON files for added languages, or nano")
    heldout: tuple[str, ...] = setting((), "LLaVA JSON files that are only asked about (eval_steps), or nano")
    image_folder: str | None = setting(None, "folder of the images; null means the folder of each JSON file")
    nano_folder: str = setting("runs/nano/data", "where the nano world is written")
    max_length: int = setting(2048, "longest sample in tokens, image tokens included; the rest of a longer one is cut")
    max_pixels: int = setting(16_000_000, "largest picture that is read, in pixels; a larger one is a bad record")
    max_bad_fraction: float = setting(
        0.0, "share of bad records skipped by rule and reported; above it the run refuses"
    )
    image_cache: Literal["none", "pixels"] = setting(
        "none", "none: decode in the loading workers; pixels: decode once, into a memory-mapped file beside the data"
    )
    workers: int | None = setting(None, "processes that decode images; null takes one per core, 16 at most")

    def __post_init__(self) -> None:
        _require(
            0.0 <= self.max_bad_fraction < 1.0, "max_bad_fraction", self.max_bad_fraction, "at least 0 and below 1"
        )
        _require(self.max_length >= 8, "max_length", self.max_length, "at least 8")
        _require(self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more")
        _require(self.workers is None or self.workers >= 0, "workers", self.workers, "0 or more")


@dataclass(frozen=True)
class NanoDataConfig:
    """The nano world: how much of it is drawn."""

    seed: int = setting(1, "decides every scene, question and file")
    stage1_scenes: int = setting(12000, "pictures with an English caption, for stage 1")
    stage2_scenes: int = setting(20000, "pictures with questions in six languages, for stage 2")
    heldout_scenes: int = setting(1200, "pictures that training never sees")
    extend_scenes: int = setting(6000, "pictures with questions for extend")
    extend_replay: float = setting(
        0.5, "share of them whose questions are in the six languages, which are lost without"
    )

    def __post_init__(self) -> None:
        for name in ("stage1_scenes", "stage2_scenes", "heldout_scenes", "extend_scenes"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(0 <= self.extend_replay < 1, "extend_replay", self.extend_replay, "at least 0 and below 1")


@dataclass(frozen=True)
class StageConfig:
    """What both stages have in common (Table 13)."""

    learning_rate: float = setting(1e-3, "peak learning rate")
    global_batch: int = setting(256, "conversations per optimiser step over all devices")
    micro_batch: int = setting(16, "conversations per device and forward pass")
    epochs: float = setting(1.0, "passes over the data")
    max_steps: int | None = setting(None, "optimiser steps; when given, it decides instead of epochs")
    warmup_ratio: float = setting(0.03, "share of the steps over which the learning rate rises")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    scheduler: Literal["cosine", "linear", "constant"] = setting("cosine", "learning rate after the warm-up")
    clip: float = setting(1.0, "largest gradient norm")
    precision: Literal["bf16", "fp32"] = setting("bf16", "of the products; master weights stay fp32")
    gradient_checkpointing: bool = setting(True, "recompute activations: less memory, about a third more time")
    zero: Literal[0, 1, 2, 3] = setting(
        2, "under a launcher, what DeepSpeed shares out: 1 optimiser, 2 and gradients, 3 and weights; 0: no DeepSpeed"
    )
    offload: Literal["none", "optimizer", "all"] = setting(
        "none", "under DeepSpeed, what lies in the host's memory: the optimiser's state; all: the weights too (zero 3)"
    )
    deepspeed: str | None = setting(None, "a DeepSpeed configuration (JSON) of your own, instead of zero and offload")
    save_steps: int = setting(500, "optimiser steps between checkpoints")
    keep_checkpoints: int = setting(2, "newest checkpoints kept")
    log_steps: int = setting(10, "optimiser steps between log lines")
    eval_steps: int | None = setting(None, "optimiser steps between evaluations on data.heldout; null: none")
    eval_samples: int = setting(100, "held-out conversations per language that an evaluation takes")
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = setting((), "who gets the log besides log.jsonl")
    seed: int = setting(42, "of new weights, of the data order and of everything else")

    def __post_init__(self) -> None:
        for name in ("global_batch", "micro_batch", "save_steps", "keep_checkpoints", "log_steps", "eval_samples"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("learning_rate", "epochs", "clip"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        _require(self.max_steps is None or self.max_steps >= 1, "max_steps", self.max_steps, "null, or 1 or more")
        _require(self.eval_steps is None or self.eval_steps >= 1, "eval_steps", self.eval_steps, "null, or 1 or more")
        _require(0 <= self.warmup_ratio < 1, "warmup_ratio", self.warmup_ratio, "at least 0 and below 1")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        possible = {"none": (0, 1, 2, 3), "optimizer": (1, 2, 3), "all": (3,)}[self.offload]
        _require(self.zero in possible, "zero", self.zero, f"one of {possible} with offload {self.offload}")
        own = self.deepspeed is None or (self.offload == "none" and self.zero > 0)
        _require(own, "deepspeed", self.deepspeed, "null with offload or with zero 0: the file has its own")
        _require(
            self.global_batch % self.micro_batch == 0,
            "global_batch",
            self.global_batch,
            f"a multiple of micro_batch ({self.micro_batch})",
        )

    def part_rates(self) -> dict[str, float]:
        """Peak learning rate of the parts of the model that have one of their own."""
        return {}


@dataclass(frozen=True)
class Stage1Config(StageConfig):
    """Modality alignment: the projector alone learns."""


LLM_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers in a layer of every language model that Parrot can be made of."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters for the language model's linear layers, which stay as they are: one process, no launcher."""

    rank: int = setting(0, "r of the product B·A that is added to a weight; 0: the whole language model learns")
    alpha: float = setting(16.0, "the product is scaled by alpha / rank")
    dropout: float = setting(0.0, "share of an adapter's inputs that is left out while training")
    targets: tuple[Literal[LLM_LINEARS], ...] = setting(LLM_LINEARS, "linear layers that get an adapter")
    quantize: Literal["none", "nf4"] = setting(
        "none", "how the language model's linear weights are held: nf4 in 4 bits (QLoRA), none in the products' type"
    )

    def __post_init__(self) -> None:
        _require(self.rank >= 0, "rank", self.rank, "0 for full fine-tuning, or 1 or more")
        _require(self.alpha > 0, "alpha", self.alpha, "above 0")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        _require(bool(self.targets), "targets", self.targets, f"one or more of {', '.join(LLM_LINEARS)}")
        for name in self.targets:
            _require(self.targets.count(name) == 1, "targets", name, "each layer once")
        adapted = self.quantize == "none" or self.rank > 0
        _require(adapted, "quantize", self.quantize, "none with rank 0: weights of 4 bits cannot learn, adapters can")

    @property
    def scale(self) -> float:
        """What B·A is multiplied by: alpha / rank."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Stage2Config(StageConfig):
    """Multilingual instruction tuning: projector, mixture and language model learn."""

    learning_rate: float = setting(2e-5, "peak learning rate")
    global_batch: int = setting(128, "conversations per optimiser step over all devices")
    micro_batch: int = setting(8, "conversations per device and forward pass")
    zero: Literal[0, 1, 2, 3] = setting(
        3, "under a launcher, what DeepSpeed shares out: 1 optimiser, 2 and gradients, 3 and weights; 0: no DeepSpeed"
    )
    projector_learning_rate: float | None = setting(None, "of the projector alone; null takes learning_rate")
    moe_learning_rate: float | None = setting(None, "of router and experts alone; null takes learning_rate")
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("projector_learning_rate", "moe_learning_rate"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "null, or above 0")

    def part_rates(self) -> dict[str, float]:
        """Peak learning rate of the parts of the model that have one of their own."""
        rates = {"multi_modal_projector": self.projector_learning_rate, "moe": self.moe_learning_rate}
        return {part: rate for part, rate in rates.items() if rate is not None}


@dataclass(frozen=True)
class ExtendConfig(StageConfig):
    """More languages for a finished stage 2: the experts added to it and their rows of the router learn."""

    learning_rate: float = setting(1e-4, "peak learning rate")
    global_batch: int = setting(128, "conversations per optimiser step over all devices")
    micro_batch: int = setting(8, "conversations per device and forward pass")
    languages: tuple[str, ...] = setting((), "ISO 639-1 codes of the languages to add")
    experts: int | None = setting(None, "experts to add; null adds one per language")
    router_noise: float = setting(
        0.1, "normal noise on a copied row of the router, as a share of that row's root mean square"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for code in self.languages:
            _require(code in ISO_639_1, "languages", code, "ISO 639-1 codes such as es, ja or ko")
            _require(self.languages.count(code) == 1, "languages", code, "each language once")
        _require(self.experts is None or self.experts >= 1, "experts", self.experts, "null, or 1 or more")
        _require(self.router_noise >= 0, "router_noise", self.router_noise, "0 or more")
        # Old and new experts share tensors, and AdamW's decay does not ask for a gradient.
        _require(self.weight_decay == 0, "weight_decay", self.weight_decay, "0: decay would change the old experts too")

    @property
    def added_experts(self) -> int:
        """How many experts are added."""
        return len(self.languages) if self.experts is None else self.experts


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run; ``run.json`` stores it whole."""

    name: str = setting("unnamed", "names the runs: runs/<name>/stage1, stage2 and extend; by default as the file")
    backbones: BackboneConfig = field(default_factory=BackboneConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    nano: NanoDataConfig = field(default_factory=NanoDataConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    extend: ExtendConfig = field(default_factory=ExtendConfig)

    def __post_init__(self) -> None:
        _require(bool(re.fullmatch(r"[\w.-]+", self.name)), "name", self.name, "letters, digits, dots and dashes")

    def stage(self, stage: Stage) -> StageConfig:
        """The settings of a stage."""
        return getattr(self, section_of(stage))

    def files(self, stage: Stage) -> tuple[str, ...]:
        """The data files of a stage, or ``("nano",)``."""
        return getattr(self.data, section_of(stage))


def section_of(stage: Stage) -> str:
    """What the settings of a stage are called: ``stage1``, ``stage2``, ``extend``."""
    return EXTEND if stage == EXTEND else f"stage{stage}"


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}; expected {expected}")
