"""The authors' released checkpoints (``model_type: parrot_qwen2``) as Parrot models.

The mapping is plain data, so that the exporter can stream the tensors without building a model: `released_names` says
which stored tensors make each of ours (the experts of one kind are stacked), and `is_unused` which are left out, such
as the vision tower's last layers, which Parrot does not have.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from transformers import Qwen2Config

from parrot_runtime.errors import InputError
from parrot_train.shards import read_json, weight_files
from parrot_train.zero import Partitioned, is_zero_checkpoint, read_zero_checkpoint

from .configuration import ParrotConfig

if TYPE_CHECKING:
    from .modeling import ParrotForConditionalGeneration

MODEL_TYPE = "parrot_qwen2"
VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = {"linear_1": "0", "linear_2": "2"}
_VISION_PARTS = ("embeddings", "pre_layrnorm", "encoder", "post_layernorm")
# Fields of the released configuration that Parrot holds to one value; another would be another model.
_FIXED = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "cls_patch",
    "mm_patch_merge_type": "flat",
    "image_aspect_ratio": "pad",
}
_TEXT_FIELDS = {field.name for field in dataclasses.fields(Qwen2Config)} | {"rope_theta", "rope_scaling"}
_TEXT_FIELDS -= {"architectures", "transformers_version"}

# Where a tensor lies: a safetensors file and the name inside it, or the parts that DeepSpeed's ranks saved.
Place = tuple[Path, str] | Partitioned


def read_config(folder: Path) -> dict[str, Any]:
    """The released ``config.json``. Raises InputError when it is missing or of another model type."""
    path = folder / "config.json"
    stored = read_json(path)
    if stored.get("model_type") != MODEL_TYPE:
        raise InputError(f"{path}: model_type is {stored.get('model_type')!r}; expected '{MODEL_TYPE}'")
    return stored


def find_vision_tower(folder: Path, stored: Mapping[str, Any], vision_tower: Path | str | None = None) -> Path:
    """The folder with the vision tower's config.json: ``vision_tower``, or what the configuration names.

    ``mm_vision_tower`` is a hub name or a path of the authors' machine; its last part is looked for inside the
    checkpoint and beside it. A hub name is also looked for among what the Hugging Face cache holds already; nothing
    is downloaded. Raises InputError that names the places looked at.
    """
    named = str(stored.get("mm_vision_tower") or "")
    last = re.split(r"[/\\]", named.rstrip("/\\"))[-1]
    places = [folder / last, folder.parent / last, Path(named)] if last not in ("", ".", "..") else []
    places = [Path(vision_tower)] if vision_tower else places
    for place in places:
        if (place / "config.json").is_file():
            return place
    if cached := _in_hub_cache(str(vision_tower or named)):
        return cached
    looked = ", ".join(map(str, places)) or "no folder that it names"
    raise InputError(
        f"{folder}: its vision tower '{named}' is in none of {looked}, nor in the Hugging Face cache; download it and "
        "name its folder with --vision-tower"
    )


def _in_hub_cache(name: str) -> Path | None:
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a path, or no name at all
        return None
    return Path(found).parent if isinstance(found, str) else None


def released_config(folder: Path, vision_tower: Path | str | None = None) -> ParrotConfig:
    """The checkpoint's configuration in Parrot's terms. Raises InputError for a setting Parrot does not have."""
    stored, where = read_config(folder), folder / "config.json"
    tower = read_json(find_vision_tower(folder, stored, vision_tower) / "config.json")
    text = Qwen2Config(**{name: value for name, value in stored.items() if name in _TEXT_FIELDS})
    for name, value in (_FIXED | {"moe_hidden_size": text.hidden_size}).items():
        if stored.get(name, value) != value:
            raise InputError(f"{where}: {name} is {stored[name]!r}; only {value!r} is supported")
    experts = stored.get("num_experts", 0) if stored.get("use_moe", True) else 0
    residual = experts and stored.get("use_moe_residual", True)
    if residual and "moe_weight" not in stored:
        # The released code has two defaults for it, 0.1 and 1.0.
        raise InputError(
            f"{where}: moe_weight is missing; add the weight of the residual that the model was trained with"
        )
    return ParrotConfig(
        vision_config=_vision_config(tower),
        text_config=text,
        vision_feature_layer=stored.get("mm_vision_select_layer", -2),
        num_experts=experts,
        expert_kind="swiglu",
        expert_intermediate_size=stored.get("moe_intermediate_size"),
        residual="released",
        # Without the residual the visual tokens are the experts' output alone.
        alpha=float(stored["moe_weight"]) if residual else 0.0,
        tie_word_embeddings=bool(stored.get("tie_word_embeddings", False)),
    )


def _vision_config(tower: Mapping[str, Any]) -> dict[str, Any]:
    """The vision side of a tower's ``config.json``, which may be that of a whole model with its text side."""
    kind = str(tower.get("model_type", "clip")).removesuffix("_vision_model")
    return tower.get("vision_config", tower) | {"model_type": f"{kind}_vision_model"}


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
    """Whether Parrot has no use for a stored tensor: vision layers after the features, a tied output, an old buffer."""
    if stored.endswith((".rotary_emb.inv_freq", ".position_ids")):
        return True
    if stored == "lm_head.weight":
        return config.tie_word_embeddings
    rest = stored.removeprefix(VISION_PREFIX)
    layer = re.match(r"encoder\.layers\.(\d+)\.", rest)
    late = layer is not None and config.vision_layers <= int(layer[1]) < config.vision_config.num_hidden_layers
    return rest != stored and (rest.startswith(("post_layernorm.", "head.")) or late)


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
        raise InputError(f"{where}: the tensors are not those of the model in its config.json; {'; '.join(parts)}")


def stored_tensors(folder: Path, tower: Path) -> dict[str, Place]:
    """The place of every stored tensor, by its name in the released format; sharded or not.

    A checkpoint saved without its frozen vision tower takes it from the folder ``tower``. Raises InputError for a
    folder without safetensors files, or a file that is none.
    """
    found = tensor_places(folder)
    if lacks_vision_tower(found):
        places = tensor_places(tower)
        found |= {name: places[stored] for name, stored in vision_tower_names(places).items()}
    return found


def lacks_vision_tower(names: Iterable[str]) -> bool:
    """Whether a checkpoint of tensors ``names`` was saved without its frozen vision tower."""
    return not any(name.startswith(VISION_PREFIX) for name in names)


def vision_tower_names(names: Iterable[str]) -> dict[str, str]:
    """Of the tensors ``names`` of a CLIP folder, those of the vision side, by their names in the released format."""
    # A folder of the whole CLIP has the text side too; transformers leaves the prefix out in some releases.
    rests = {name: name.removeprefix("vision_model.") for name in names}
    return {VISION_PREFIX + rest: name for name, rest in rests.items() if rest.split(".")[0] in _VISION_PARTS}


def tensor_places(folder: Path) -> dict[str, Place]:
    """The place of every tensor in ``folder``, sharded or not, by its name. Raises InputError."""
    found: dict[str, Place] = {}
    if is_zero_checkpoint(folder):
        return found | read_zero_checkpoint(folder)
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as opened:
                found |= {name: (file, name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file}: cannot be read as safetensors ({error}); download it again") from error
    return found


def load_released(
    folder: Path | str, vision_tower: Path | str | None = None, *, dtype: torch.dtype = torch.float32
) -> "ParrotForConditionalGeneration":
    """Build the Parrot model of a released checkpoint, in eval mode, its weights converted to ``dtype``.

    Raises InputError for a folder that is none, a vision tower that is not found (``vision_tower`` overrides the
    search), and for missing or unexpected tensors or shapes, all of them listed.
    """
    folder = Path(folder)
    config = released_config(folder, vision_tower)
    places = stored_tensors(folder, find_vision_tower(folder, read_config(folder), vision_tower))
    return load_tensors(config, places, str(folder), dtype)


def load_tensors(
    config: ParrotConfig, places: Mapping[str, Place], where: str, dtype: torch.dtype
) -> "ParrotForConditionalGeneration":
    """The model of ``config`` with the tensors at ``places``, given by their names in the released format.

    Raises InputError for missing or unexpected tensors or shapes, all of them listed; ``where`` names the checkpoint.
    """
    from .modeling import ParrotForConditionalGeneration

    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in ParrotForConditionalGeneration(config).named_parameters()}
    wanted = released_names(config, shapes)
    check_names(config, wanted, places, where)
    weights = _read_weights(wanted, places, shapes, dtype, where)
    model = ParrotForConditionalGeneration.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    return model.eval()


def _read_weights(
    wanted: Mapping[str, tuple[str, ...]],
    places: Mapping[str, Place],
    shapes: Mapping[str, torch.Size],
    dtype: torch.dtype,
    where: str,
) -> dict[str, torch.Tensor]:
    """The tensors by Parrot's names. Raises InputError that lists every one of another shape."""
    weights, faults = {}, []
    with ExitStack() as stack:
        files = {place[0] for place in places.values() if isinstance(place, tuple)}
        opened = {file: stack.enter_context(safe_open(file, "pt")) for file in files}
        for name, group in wanted.items():
            stacked = name.startswith("model.moe.experts.")
            expected = list(shapes[name][1:] if stacked else shapes[name])
            parts = [
                opened[place[0]].get_tensor(place[1]) if isinstance(place, tuple) else place.load()
                for place in map(places.get, group)
            ]
            wrong = [
                f"{stored} is {list(part.shape)} where config.json asks for {expected}"
                for stored, part in zip(group, parts, strict=True)
                if list(part.shape) != expected
            ]
            faults += wrong
            if not wrong:
                weights[name] = (torch.stack(parts) if stacked else parts[0]).to(dtype)
    if faults:
        raise InputError(f"{where}: the weights do not fit the configuration: {'; '.join(faults)}")
    return weights
