"""A LLaVA-1.5 checkpoint of transformers (``model_type: llava``) as a Parrot without experts: the paper's baseline.

Its tensors are read by the names of the released Parrot format, so that one code checks, maps and loads both. The names
differ between releases of transformers, which put the parts inside or outside of ``model``; both are known here.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import LlavaConfig

from parrot_runtime.errors import InputError
from parrot_train.shards import read_json

from .configuration import WITHOUT_CLASS_TOKEN, ParrotConfig
from .released import VISION_PREFIX, load_tensors, tensor_places

if TYPE_CHECKING:
    from .modeling import ParrotForConditionalGeneration

MODEL_TYPE = "llava"
_SELECT = {"default": "patch", "full": "cls_patch"}
# The first that fits counts.
_PREFIXES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.",
    "language_model.": "model.",
    "vision_tower.vision_model.": VISION_PREFIX,
    "vision_tower.": VISION_PREFIX,
    "multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "multi_modal_projector.linear_2.": "model.mm_projector.2.",
}


def llava_config(folder: Path) -> ParrotConfig:
    """The checkpoint's configuration in Parrot's terms.

    Raises InputError for a file that cannot be read or a setting Parrot does not have, and ValueError for a language
    model or vision encoder that it does not know.
    """
    path = folder / "config.json"
    stored = read_json(path)
    if stored.get("model_type") != MODEL_TYPE:
        raise InputError(f"{path}: model_type is {stored.get('model_type')!r}; expected '{MODEL_TYPE}'")
    config = LlavaConfig.from_dict(stored)
    if not isinstance(config.vision_feature_layer, int):
        raise InputError(f"{path}: vision_feature_layer is {config.vision_feature_layer}; only one layer is supported")
    if not config.multimodal_projector_bias:
        raise InputError(f"{path}: multimodal_projector_bias is false; only a projector with biases is supported")
    keeps, encoder = _SELECT[config.vision_feature_select_strategy], config.vision_config.model_type
    if encoder in WITHOUT_CLASS_TOKEN:
        if keeps == "patch":  # transformers drops the first row, whatever it is
            raise InputError(
                f"{path}: vision_feature_select_strategy is 'default', which drops the first patch of a {encoder}, and "
                "the model was trained on what is left; only 'full' is supported"
            )
        keeps = "patch"
    return ParrotConfig(
        vision_config=config.vision_config,
        text_config=config.text_config,
        projector_hidden_act=config.projector_hidden_act,
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select=keeps,
        num_experts=0,
        tie_word_embeddings=config.tie_word_embeddings,
    )


def released_names_of(names: Iterable[str]) -> dict[str, str]:
    """The tensors ``names`` of a LLaVA checkpoint by their names in the released format; unknown ones by their own."""
    return {_released_name(name): name for name in names}


def _released_name(stored: str) -> str:
    rest = stored.removeprefix("model.")
    prefix = next((prefix for prefix in _PREFIXES if rest.startswith(prefix)), None)
    return stored if prefix is None else _PREFIXES[prefix] + rest.removeprefix(prefix)


def load_llava(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "ParrotForConditionalGeneration":
    """Build the Parrot model of a LLaVA checkpoint, sharded or not, in eval mode, its weights converted to ``dtype``.

    Its prompts mark an image with Parrot's ``image_token_id`` and not with a row of the vocabulary. Raises as
    ``llava_config``, and InputError for missing or unexpected tensors or shapes, all of them listed.
    """
    folder = Path(folder)
    stored = tensor_places(folder)
    places = {name: stored[own] for name, own in released_names_of(stored).items()}
    return load_tensors(llava_config(folder), places, str(folder), dtype)
