"""A checkpoint as an export sees it: configuration, architecture, recipe, and a lazy view of its tensors.

Three formats are read, in one safetensors file, in shards, or in the parts that DeepSpeed's ranks saved: Parrot's own
(``model_type: parrot``), that of the released checkpoints (``parrot_qwen2``), and LLaVA-1.5 as transformers has it
(``llava``), which is a Parrot without experts. Tensors go by Parrot's names in all of them. Nothing here loads a model.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_export.architecture import LLM, VISION, Architecture, Shapes, from_config, tensor_shapes
from parrot_export.slabs import MadeSlab, Slab, StoredTensor, read_merged_slabs, read_slabs, read_zero_slabs
from parrot_runtime.errors import InputError
from parrot_runtime.image import ImageRecipe
from parrot_runtime.manifest import TOKENIZER_NAME, PromptRecipe
from parrot_runtime.prompt import SYSTEM_PROMPT
from parrot_runtime.strict import from_mapping
from parrot_runtime.templates import prompt_encoder
from parrot_runtime.tokenizer import load_tokenizer
from parrot_runtime.vicuna import SYSTEM_PROMPT as VICUNAS_SYSTEM_PROMPT
from parrot_runtime.vicuna import is_vicunas
from parrot_train.recipe import RECIPE_FILE, image_recipe
from parrot_train.shards import AGAIN, is_lora_checkpoint, read_json
from parrot_train.zero import is_zero_checkpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration

CONFIG_NAME = "config.json"
NATIVE, RELEASED, LLAVA = "parrot", "parrot_qwen2", "llava"
FORMATS = {NATIVE: "written by parrot-train", RELEASED: "the released checkpoints", LLAVA: "LLaVA-1.5 of transformers"}
# Buffers that older versions of transformers saved beside the parameters, and that are computed today.
_BUFFERS = (".rotary_emb.inv_freq", ".position_ids")
_LISTED = 8


@dataclass(frozen=True)
class Recipe:
    """What stands beside the weights: how pictures and prompts are made ready, and how the model was trained."""

    image: ImageRecipe
    prompt: PromptRecipe
    training: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder; ``tensors`` holds every tensor an export reads, by Parrot's names."""

    folder: Path
    format: str
    config: "ParrotConfig"
    architecture: Architecture
    recipe: Recipe
    tensors: Mapping[str, StoredTensor]
    vision_tower: Path | None = None

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / TOKENIZER_NAME

    def load_model(self) -> "ParrotForConditionalGeneration":
        """The whole model in torch, float32: the reference of a verification, and nothing else here needs it."""
        if self.format == RELEASED:
            from parrot_train.model.released import load_released

            return load_released(self.folder, self.vision_tower)
        if self.format == LLAVA:
            from parrot_train.model.llava import load_llava

            return load_llava(self.folder)
        from transformers.utils import logging

        from parrot_train.checkpoint import load_checkpoint

        logging.disable_progress_bar()  # an export has bars of its own
        return load_checkpoint(self.folder)


def open_checkpoint(folder: Path, vision_tower: Path | None = None) -> Checkpoint:
    """Look at the checkpoint in ``folder``: configuration, recipe, tokenizer, and the headers of its weights.

    ``vision_tower`` is the folder of a released checkpoint's vision encoder, where it is not found beside it.

    Raises InputError: no such folder, another kind of model, a file that is missing, cut or malformed, a tokenizer that
    does not fit, tensors that are missing, unexpected, or of another shape than the configuration says (all named).
    """
    require_folder(folder)
    told = read_json(folder / CONFIG_NAME)
    kind = told.get("model_type")
    if not isinstance(kind, str) or kind not in FORMATS:
        known = ", ".join(f"'{name}' ({what})" for name, what in FORMATS.items())
        raise InputError(f"{folder / CONFIG_NAME}: model_type is {kind!r}; expected one of {known}")
    if told.get("quantization_config"):
        raise InputError(
            f"{folder / CONFIG_NAME}: the weights are quantised already (quantization_config); give the checkpoint "
            "they were made from"
        )
    with _one_line(folder / CONFIG_NAME):
        config = _read_config(folder, kind, vision_tower)
        architecture = from_config(config, where=str(folder / CONFIG_NAME))
        needed, spare = tensor_shapes(architecture)
    tokenizer = load_tokenizer(folder / TOKENIZER_NAME)
    recipe = _read_recipe(folder, kind, config, tokenizer)
    _check_tokenizer(folder / TOKENIZER_NAME, tokenizer, recipe.prompt, architecture)
    if kind == NATIVE:
        tensors = _native(_stored(folder), needed, spare, folder)
    else:
        slabs = _llava_slabs(folder) if kind == LLAVA else _released_slabs(folder, vision_tower)
        tensors = _released(slabs, config, needed, folder)
    _check_shapes(tensors, needed, folder)
    return Checkpoint(folder, kind, config, architecture, recipe, tensors, vision_tower)


def require_folder(folder: Path) -> None:
    """Raise InputError unless ``folder`` is one."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such checkpoint folder; give the folder that holds {CONFIG_NAME}")


def files_of_types(folder: Path, types: Collection[str]) -> list[Path]:
    """The weight files of the checkpoint in ``folder`` that hold numbers of ``types`` (numpy's names); none where
    ``open_checkpoint`` will find that they cannot be read.
    """
    try:
        return list({slab.file: None for _, slab in read_slabs(folder) if str(slab.dtype) in types})
    except InputError:
        return []


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Whatever values of a configuration make of themselves, as InputError that names its file."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (StrictDataclassError, ValueError, TypeError, AttributeError, KeyError, ZeroDivisionError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{path}: {text or type(error).__name__}; {AGAIN}") from error


def _read_config(folder: Path, kind: str, vision_tower: Path | None) -> "ParrotConfig":
    if kind == RELEASED:
        from parrot_train.model.released import released_config

        return released_config(folder, vision_tower)
    if kind == LLAVA:
        from parrot_train.model.llava import llava_config

        return llava_config(folder)
    from parrot_train.model import ParrotConfig

    return ParrotConfig.from_pretrained(folder)


def _read_recipe(folder: Path, kind: str, config: "ParrotConfig", tokenizer: "Tokenizer") -> Recipe:
    """The recipe of ``parrot_recipe.json``. Others' checkpoints have none: theirs is the paper's, for their encoder,
    and where the tokenizer is Vicuna's, the prompt LLaVA-1.5 was trained with."""
    path, size = folder / RECIPE_FILE, config.vision_config.image_size
    if kind != NATIVE and not path.exists():
        vicuna = PromptRecipe(VICUNAS_SYSTEM_PROMPT, template="vicuna")
        return Recipe(image_recipe(config), vicuna if is_vicunas(tokenizer) else PromptRecipe(SYSTEM_PROMPT), {})
    stored = read_json(path)
    image = from_mapping(ImageRecipe, stored.get("image"), where=f"{path}: image")
    prompt = from_mapping(PromptRecipe, stored.get("prompt"), where=f"{path}: prompt")
    if image.size != size:
        raise InputError(f"{path}: pictures of {image.size} pixels for a vision encoder of {size}; {AGAIN}")
    return Recipe(image, prompt, _training(stored, path))


def _training(stored: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the recipe in ``path`` says of the training: nothing, or objects where they are expected."""
    training = inner = stored.get("training") or {}
    for name in ("settings", "data"):
        if isinstance(inner, dict):
            inner = inner.get(name, {})
        if not isinstance(inner, dict):
            raise InputError(f"{path}: training and its settings are no JSON objects; {AGAIN}")
    return training


def _check_tokenizer(path: Path, tokenizer: "Tokenizer", prompt: PromptRecipe, architecture: Architecture) -> None:
    prompt_encoder(tokenizer, prompt)  # refuses one without the control tokens
    tokens, rows = tokenizer.get_vocab_size(), architecture.decoder.vocabulary
    if tokens > rows:
        raise InputError(f"{path}: {tokens} tokens for a model of {rows}; put the model's own tokenizer there")


def _stored(folder: Path) -> dict[str, Slab | MadeSlab]:
    """Every tensor in ``folder``: of the model's files or, where DeepSpeed's or adapters are all there is, of these."""
    if is_lora_checkpoint(folder):
        return dict(read_merged_slabs(folder))
    return dict(read_zero_slabs(folder) if is_zero_checkpoint(folder) else read_slabs(folder))


def _native(
    slabs: Mapping[str, Slab | MadeSlab], needed: Shapes, spare: Shapes, folder: Path
) -> dict[str, StoredTensor]:
    """Parrot's own format."""
    named = {native_name(name): slab for name, slab in slabs.items()}
    faults = [f"{name} is missing" for name in needed if name not in named]
    known = needed.keys() | spare.keys()
    faults += [f"{name} is unexpected" for name in named if name not in known and not name.endswith(_BUFFERS)]
    _refuse(faults, folder)
    return {name: StoredTensor(name, named[name].dtype, named[name].shape, (named[name],)) for name in needed}


def native_name(name: str) -> str:
    """A stored name as the model has it now. transformers has written CLIP's parts inside and outside of a
    ``vision_model``, and writes the language model's inside of a ``model`` when it was loaded under ZeRO 3."""
    tower, inside = VISION.removesuffix("vision_model"), f"{LLM}.model."
    if name.startswith(tower) and not name.startswith(VISION):
        return name.replace(tower, f"{VISION}.", 1)
    return name.replace(inside, f"{LLM}.", 1) if name.startswith(inside) else name


def _released_slabs(folder: Path, vision_tower: Path | None) -> dict[str, Slab | MadeSlab]:
    """What a released checkpoint stores; the vision tower from a folder of its own where it was saved without."""
    from parrot_train.model.released import find_vision_tower, lacks_vision_tower, vision_tower_names

    slabs = _stored(folder)
    if lacks_vision_tower(slabs):
        tower = dict(read_slabs(find_vision_tower(folder, read_json(folder / CONFIG_NAME), vision_tower)))
        slabs |= {name: tower[stored] for name, stored in vision_tower_names(tower).items()}
    return slabs


def _llava_slabs(folder: Path) -> dict[str, Slab | MadeSlab]:
    """What a LLaVA checkpoint stores, by the names of the released format."""
    from parrot_train.model.llava import released_names_of

    slabs = _stored(folder)
    return {name: slabs[stored] for name, stored in released_names_of(slabs).items()}


def _released(
    slabs: Mapping[str, Slab | MadeSlab], config: "ParrotConfig", needed: Shapes, folder: Path
) -> dict[str, StoredTensor]:
    """The released format, whose experts are tensors of their own."""
    from parrot_train.model.released import check_names, released_names

    groups = released_names(config, needed)
    check_names(config, groups, slabs, str(folder))
    tensors = {}
    for name, group in groups.items():
        parts = tuple(slabs[stored] for stored in group)
        if len({(part.dtype, part.shape) for part in parts}) > 1:
            raise InputError(f"{folder}: {group[0]} and its siblings differ in type or shape; {AGAIN}")
        shape = (len(parts), *parts[0].shape) if len(needed[name]) == 3 else parts[0].shape
        tensors[name] = StoredTensor(name, parts[0].dtype, shape, parts)
    return tensors


def _check_shapes(tensors: Mapping[str, StoredTensor], needed: Shapes, folder: Path) -> None:
    _refuse(
        [
            f"{name} is {list(tensors[name].shape)} where {CONFIG_NAME} asks for {list(shape)}"
            for name, shape in needed.items()
            if tensors[name].shape != shape
        ],
        folder,
    )


def _refuse(faults: list[str], folder: Path) -> None:
    """One line for everything that is wrong with the tensors."""
    if faults:
        more = f" (and {len(faults) - _LISTED} more)" if len(faults) > _LISTED else ""
        raise InputError(
            f"{folder}: the weights do not fit its configuration: {'; '.join(faults[:_LISTED])}{more}; {AGAIN}"
        )
