"""The one command behind nano's pretrained weights: ``parrot-train nano backbones``.

It writes ``vision/`` (config.json, model.safetensors) and ``llm/`` (those and tokenizer.json), fp16, in the format of
any CLIP and Qwen2 checkpoint. What is shipped under ``parrot_train/nano/weights`` came from these recipes, phase by
phase; docs/nano.md says what was not run as it stands here.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from parrot_runtime.publish import publish_directory

DEFAULT_FOLDER = Path("runs/nano/backbones")


def shipped(part: str) -> Path:
    """The folder of the shipped ``vision`` or ``llm`` backbone."""
    return Path(str(resources.files("parrot_train.nano") / "weights" / part))


def make_backbones(
    folder: Path = DEFAULT_FOLDER, *, force: bool = False, report: Callable[[str], None] = lambda line: None
) -> dict[str, Path]:
    """Pretrain both backbones into ``folder``; their folders by name.

    On one core vision took 27 minutes; the phases the shipped LLM went through took two and a half hours, some on one
    core, some on two.
    ``report`` gets a line of progress now and then. Raises InputError when ``folder`` exists, unless ``force``.
    """
    from transformers.utils import logging

    from parrot_train.nano import language_backbone, vision_backbone

    logging.disable_progress_bar()
    workers = os.cpu_count() or 1
    recipes = {"vision": vision_backbone.VisionRecipe(), "llm": language_backbone.LanguageRecipe()}
    with publish_directory(folder, force=force) as beside:
        vision_backbone.pretrain(recipes["vision"], beside / "vision", workers=workers, report=report)
        language_backbone.pretrain(recipes["llm"], beside / "llm", workers=workers, report=report)
        for part, recipe in recipes.items():
            (beside / part / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", "utf-8")
    return {part: folder / part for part in recipes}
