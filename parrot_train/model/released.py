"""The authors' released checkpoints (``model_type: parrot_qwen2``) as Parrot models.

The mapping is plain data, so that the exporter can stream the tensors without building a model: `released_names` says
which stored tensors make each of ours (the experts of one kind are stacked), and `unused_names` which are left out
because Parrot reads the vision tower before its last layers.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import CLIPVisionConfig, Qwen2Config

from parrot_runtime.errors import InputError

from .configuration import ParrotConfig
from .modeling import ParrotForConditionalGeneration

MODEL_TYPE = "parrot_qwen2"
VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = {"linear_1": "0", "linear_2": "2"}
EXPERT_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
# Fields of the released configuration that Parrot holds to one value; another would be another model.
_FIXED = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "cls_patch",
    "mm_patch_merge_type": "flat",
    "image_aspect_ratio": "pad",
}


def read_config(folder: Path) -> dict[str, Any]:
    """The released ``config.json``. Raises InputError when it is missing or of another model type."""
    path = folder / "config.json"
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give the folder of a released checkpoint") from error
    if stored.get("model_type") != MODEL_TYPE:
        raise InputError(f"{path}: model_type is {stored.get('model_type')!r}; expected '{MODEL_TYPE}'")
    return stored


def find_vision_tower(folder: Path, stored: Mapping[str, Any], vision_tower: Path | None = None) -> Path:
    """The folder with the vision tower's config.json: ``vision_tower``, or a folder named in the configuration.

    ``mm_vision_tower`` is a hub name or a path of the authors' machine; its last part is looked for inside the
    checkpoint and beside it. Nothing is downloaded. Raises InputError that names the places looked at.
    """
    named = str(stored.get("mm_vision_tower", ""))
    last = re.split(r"[/\\]", named.rstrip("/\\"))[-1]
    places = [Path(vision_tower)] if vision_tower else [folder / last, folder.parent / last, Path(named)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    looked = ", ".join(map(str, places))
    raise InputError(
        f"{folder}: its vision tower '{named}' is in none of {looked}; download it and name its folder with "
        "--vision-tower"
    )


def released_config(folder: Path, vision_tower: Path | None = None) -> ParrotConfig:
    """The checkpoint's configuration in Parrot's terms. Raises InputError for a setting Parrot does not have."""
    stored = read_config(folder)
    for name, value in _FIXED.items():
        if stored.get(name, value) != value:
            raise InputError(f"{folder / 'config.json'}: {name} is {stored[name]!r}; only {value!r} is supported")
    tower = json.loads((find_vision_tower(folder, stored, vision_tower) / "config.json").read_text("utf-8"))
    vision = CLIPVisionConfig(**tower.get("vision_config", tower))
    experts = stored.get("num_experts", 0) if stored.get("use_moe", True) else 0
    text = Qwen2Config(**{name: value for name, value in stored.items() if name not in ("architectures", "model_type")})
    return ParrotConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=stored.get("mm_vision_select_layer", -2),
        num_experts=experts,
        expert_kind="swiglu",
        expert_intermediate_size=stored.get("moe_intermediate_size"),
        residual="released",
        # Without the residual the visual tokens are the experts' output alone.
        alpha=float(stored.get("moe_weight", 1.0)) if stored.get("use_moe_residual", True) else 0.0,
        tie_word_embeddings=bool(stored.get("tie_word_embeddings", False)),
    )


def released_names(config: ParrotConfig, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For each of Parrot's tensor ``names`` the stored ones that make it: one, or one per expert to be stacked."""
    return {name: _stored_names(config, name) for name in names}


def _stored_names(config: ParrotConfig, name: str) -> tuple[str, ...]:
    if name == "model.moe.router.weight":
        return ("model.moe_model.gate.weight",)
    if name.startswith("model.moe.experts."):
        rest = name.removeprefix("model.moe.experts.")
        return tuple(f"model.moe_model.experts.{expert}.{rest}" for expert in range(config.num_experts))
    if name.startswith("model.multi_modal_projector."):
        layer, rest = name.removeprefix("model.multi_modal_projector.").split(".")
        return (f"model.mm_projector.{PROJECTOR[layer]}.{rest}",)
    if name.startswith("model.vision_tower."):
        return (VISION_PREFIX + name.removeprefix("model.vision_tower.").removeprefix("vision_model."),)
    return (name.replace("model.language_model.", "model.", 1),)


def is_unused(config: ParrotConfig, stored: str) -> bool:
    """Whether a stored tensor belongs to the vision tower's layers after the features, or is an old buffer."""
    if stored.endswith(("rotary_emb.inv_freq", "position_ids")):
        return True
    rest = stored.removeprefix(VISION_PREFIX)
    layer = re.match(r"encoder\.layers\.(\d+)\.", rest)
    return rest != stored and (rest.startswith("post_layernorm.") or (layer and int(layer[1]) >= config.vision_layers))


def check_names(
    config: ParrotConfig, wanted: Mapping[str, tuple[str, ...]], present: Iterable[str], where: str
) -> None:
    """Raise InputError that lists every missing and every unexpected tensor."""
    needed = {stored for group in wanted.values() for stored in group}
    present = set(present)
    missing = sorted(needed - present)
    unexpected = sorted(name for name in present - needed if not is_unused(config, name))
    if missing or unexpected:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing)
        parts += [f"unexpected: {', '.join(unexpected)}"] * bool(unexpected)
        raise InputError(f"{where}: the tensors are not those of a released Parrot; {'; '.join(parts)}")


def stored_files(folder: Path) -> dict[str, Path]:
    """The safetensors file of every stored tensor, sharded or not. Raises InputError when there is none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: there is no .safetensors file; give the folder of a released checkpoint")
    found: dict[str, Path] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found


def load_released(
    folder: Path | str, vision_tower: Path | None = None, *, dtype: torch.dtype = torch.float32
) -> ParrotForConditionalGeneration:
    """Build the Parrot model of a released checkpoint.

    Raises InputError for a folder that is none, a vision tower that is not found (``vision_tower`` overrides the
    search), and missing or unexpected tensors, all of them listed.
    """
    folder = Path(folder)
    config = released_config(folder, vision_tower)
    with torch.device("meta"):
        model = ParrotForConditionalGeneration(config)
    names = [name for name, _ in model.named_parameters()]
    wanted, files = released_names(config, names), stored_files(folder)
    check_names(config, wanted, files, str(folder))
    opened = {file: safe_open(file, "pt") for file in set(files.values())}
    weights = {}
    for name, group in wanted.items():
        parts = [opened[files[stored]].get_tensor(stored).to(dtype) for stored in group]
        weights[name] = torch.stack(parts) if name.startswith("model.moe.experts.") else parts[0]
    return _materialise(config, weights, dtype)


def _materialise(config: ParrotConfig, weights: dict, dtype: torch.dtype) -> ParrotForConditionalGeneration:
    # Buffers (rotary frequencies, position ids) are computed by the constructor, so the model is built for real.
    model = ParrotForConditionalGeneration(config).to(dtype)
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    return model.eval()
