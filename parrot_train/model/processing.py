"""ParrotProcessor: pictures and turns to the model's inputs, through the runtime's own prompt and image code."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from parrot_runtime.errors import InputError
from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.manifest import PromptRecipe
from parrot_runtime.prompt import SYSTEM_PROMPT, PromptEncoder, Turn
from parrot_runtime.publish import write_file
from parrot_runtime.strict import from_mapping
from parrot_train.recipe import RECIPE_FILE

from .configuration import ParrotConfig

TOKENIZER_FILE = "tokenizer.json"


class ParrotProcessor(ProcessorMixin):
    """Makes ``input_ids``, ``attention_mask`` and ``pixel_values`` for `ParrotForConditionalGeneration`.

    Args:
        tokenizer: a fast tokenizer with Qwen's control tokens.
        recipe: how an image is made ready.
        image_tokens: P, the positions one image takes.
        system: the system text that opens every prompt.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        recipe: ImageRecipe,
        image_tokens: int,
        system: str = SYSTEM_PROMPT,
    ):
        super().__init__(tokenizer)
        self.recipe, self.image_tokens, self.system = recipe, image_tokens, system
        # A copy, because the encoder sets its tokenizer to read control tokens as plain text.
        self._prompts = PromptEncoder(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        turns: Sequence[Turn] | Sequence[Sequence[Turn]] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prompts that the model answers next, one per question or conversation, padded on the left.

        Args:
            images: a picture or a list of them in reading order over the batch: paths, bytes or PIL images.
            text: a question, or one per row. One question takes all ``images``; several take one each, or none.
            turns: instead of ``text`` a conversation that ends with the user's turn, or one per row; its turns say
                where images stand.
            return_tensors: ``pt`` or ``np``.

        Returns:
            int64 ``[B, T]`` ``input_ids`` and ``attention_mask``, and with images float32 ``[N, 3, S, S]``
            ``pixel_values``.

        Raises ImageError and TextError for what cannot be read, ValueError where images and prompts do not match.
        """
        pictures = [] if images is None else list(images) if isinstance(images, list | tuple) else [images]
        if (text is None) == (turns is None):
            raise ValueError("give either text or turns")
        rows = _as_rows(turns) if text is None else _as_questions(text, len(pictures))
        wanted = sum(turn.images for row in rows for turn in row)
        if wanted != len(pictures):
            raise ValueError(f"the turns hold {wanted} images, but {len(pictures)} were given")
        prompts = [
            self._prompts.encode(row, image_tokens=self.image_tokens, system=self.system, generation=True).input_ids
            for row in rows
        ]
        length = max(map(len, prompts))
        ids = np.full((len(prompts), length), self._prompts.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = prompt
            mask[row, length - len(prompt) :] = 1
        data = {"input_ids": ids, "attention_mask": mask}
        if pictures:
            data["pixel_values"] = np.stack([preprocess(read_image(picture), self.recipe) for picture in pictures])
        return BatchFeature(data, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        """What ``__call__`` returns."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def decode(self, ids: Any, **options: Any) -> str:
        """Token ids ``[T]`` to text; image positions, and by default control tokens, are left out."""
        tokens = [token for token in np.asarray(ids).tolist() if token >= 0]
        return self.tokenizer.decode(tokens, **({"skip_special_tokens": True} | options))

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        """Token ids ``[B, T]`` to texts, as ``decode``."""
        return [self.decode(row, **options) for row in ids]

    def to_dict(self) -> dict[str, Any]:
        """What ``repr`` shows."""
        return {"image": asdict(self.recipe), "image_tokens": self.image_tokens, "system": self.system}

    def save_pretrained(self, folder: str | Path, **_options: Any) -> list[str]:
        """Write tokenizer.json and the recipe's image and prompt; what else stands in a recipe there is kept."""
        folder = Path(folder)
        stored = _read_recipe(folder / RECIPE_FILE) if (folder / RECIPE_FILE).exists() else {}
        recipe = stored | {"image": asdict(self.recipe), "prompt": asdict(PromptRecipe(self.system))}
        write_file(folder / TOKENIZER_FILE, self.tokenizer.backend_tokenizer.to_str(pretty=True).encode())
        write_file(folder / RECIPE_FILE, (json.dumps(recipe, ensure_ascii=False, indent=1) + "\n").encode())
        return [str(folder / TOKENIZER_FILE), str(folder / RECIPE_FILE)]

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_options: Any) -> "ParrotProcessor":
        """Read a checkpoint folder: tokenizer.json, the recipe, and config.json for the number of image positions.

        Raises InputError when the tokenizer or the recipe is missing or malformed.
        """
        folder = Path(folder)
        stored, where = _read_recipe(folder / RECIPE_FILE), str(folder / RECIPE_FILE)
        if not (folder / TOKENIZER_FILE).is_file():
            raise InputError(f"{folder}: there is no {TOKENIZER_FILE}; expected a finished run of `parrot-train`")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / TOKENIZER_FILE), eos_token="<|im_end|>", pad_token="<|endoftext|>"
        )
        recipe = from_mapping(ImageRecipe, stored.get("image"), where=f"{where}: image")
        prompt = from_mapping(PromptRecipe, stored.get("prompt"), where=f"{where}: prompt")
        return cls(tokenizer, recipe, ParrotConfig.from_pretrained(folder).image_tokens, prompt.system)


def _as_rows(turns: Sequence[Turn] | Sequence[Sequence[Turn]]) -> list[list[Turn]]:
    return [list(turns)] if isinstance(turns[0], Turn) else [list(row) for row in turns]


def _as_questions(text: str | Sequence[str], images: int) -> list[list[Turn]]:
    if isinstance(text, str):
        return [[Turn("user", text, images)]]
    if images not in (0, len(text)):
        raise ValueError(f"{images} images for {len(text)} questions; give one each, none, or say with turns")
    return [[Turn("user", question, int(images > 0))] for question in text]


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a finished run of `parrot-train`") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path}: expected a JSON object; expected a finished run of `parrot-train`")
    return stored


AutoProcessor.register(ParrotConfig, ParrotProcessor, exist_ok=True)
