"""What stands beside a model's weights: its tokenizer, and how pictures and prompts are made ready for it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_runtime.image import ImageRecipe
from parrot_runtime.manifest import TOKENIZER_NAME
from parrot_runtime.prompt import SYSTEM_PROMPT

if TYPE_CHECKING:
    from parrot_train.model import ParrotConfig

RECIPE_FILE = "parrot_recipe.json"
# SigLIP's own numbers; as for CLIP, padding has the colour that becomes zero.
_SIGLIP_IMAGE = ImageRecipe(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), pad_colour=(127, 127, 127))


def image_recipe(config: "ParrotConfig") -> ImageRecipe:
    """How pictures are made ready for the model's vision encoder: its family's numbers, at its size."""
    vision = config.vision_config
    image = _SIGLIP_IMAGE if vision.model_type == "siglip_vision_model" else ImageRecipe.clip(vision.image_size)
    return replace(image, size=vision.image_size)


def write_companions(folder: Path, config: "ParrotConfig", tokenizer: Path, training: dict[str, Any]) -> None:
    """Put tokenizer and recipe (image, prompt, how it was trained) beside the weights in ``folder``."""
    shutil.copyfile(tokenizer, folder / TOKENIZER_NAME)
    recipe = {
        "image": asdict(image_recipe(config)),
        "prompt": {"system": SYSTEM_PROMPT, "image_first": True},
        "training": training,
    }
    (folder / RECIPE_FILE).write_text(json.dumps(recipe, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
