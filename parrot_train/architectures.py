"""The architectures Parrot is known by, without any weights: each is what a shipped configuration describes."""

from typing import TYPE_CHECKING

from parrot_runtime.errors import InputError
from parrot_runtime.strict import nearest
from parrot_train.backbones import backbone_shape
from parrot_train.config import TrainConfig
from parrot_train.config_files import load_config, shipped_configs

if TYPE_CHECKING:
    from parrot_train.model import ParrotConfig


def architecture(config: TrainConfig, stage: int = 2) -> "ParrotConfig":
    """The model that ``config`` trains in stage 1 (no mixture) or 2, from the shapes of its backbones alone.

    Raises InputError for backbones of unknown shape or of a family that Parrot is not made of.
    """
    from huggingface_hub.errors import StrictDataclassError

    from parrot_train.model import ParrotConfig
    from parrot_train.model.configuration import WITHOUT_CLASS_TOKEN

    vision, llm = (backbone_shape(getattr(config.backbones, part), part) for part in ("vision", "llm"))
    model = config.model
    try:
        return ParrotConfig(
            vision_config=vision,
            text_config=llm,
            vision_feature_select="patch" if vision.get("model_type") in WITHOUT_CLASS_TOKEN else "cls_patch",
            num_experts=model.experts if stage == 2 else 0,
            expert_kind=model.expert_kind,
            expert_intermediate_size=model.expert_intermediate_size,
            residual=model.residual,
            alpha=model.alpha,
        )
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise InputError(f"config {config.name}: {' '.join(str(error).split())}") from error


def named_architecture(name: str) -> "ParrotConfig":
    """The model that the shipped configuration ``name`` describes. Raises InputError for an unknown name."""
    known = shipped_configs()
    if name not in known:
        raise InputError(f"there is no architecture '{name}'; expected one of {', '.join(known)}{nearest(name, known)}")
    return architecture(load_config(name))
