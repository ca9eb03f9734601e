"""ParrotProcessor: pictures and turns to the model's inputs, through the runtime's own prompt and image code."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import SYSTEM_PROMPT, PromptEncoder, Turn
from parrot_runtime.strict import from_mapping

RECIPE_FILE = "parrot_recipe.json"


class ParrotProcessor(ProcessorMixin):
    """Makes ``input_ids``, ``attention_mask`` and ``pixel_values`` for `ParrotForConditionalGeneration`.

    Args:
        tokenizer: a fast tokenizer with Qwen's control tokens.
        recipe: how an image is made ready.
        image_tokens: P, the positions one image takes.
    """

    attributes = ["tokenizer"]  # noqa: RUF012
    tokenizer_class = "PreTrainedTokenizerFast"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: ImageRecipe, image_tokens: int):
        self.tokenizer, self.recipe, self.image_tokens = tokenizer, recipe, image_tokens
        self._prompts = PromptEncoder(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))

    def __call__(
        self,
        images: Sequence | None = None,
        text: str | Sequence[str] | None = None,
        *,
        turns: Sequence[Sequence[Turn]] | None = None,
        system: str = SYSTEM_PROMPT,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """One prompt per entry of ``text`` (a question) or ``turns`` (a conversation), padded on the left.

        ``images``: all pictures in reading order; with ``text``, one per question or none. Returns int64 ``[B, T]``
        input_ids and attention_mask and, with images, float32 ``[N, 3, S, S]`` pixel_values. Raises ImageError and
        TextError for what cannot be read, ValueError when pictures and questions do not match.
        """
        images = [] if images is None else images if isinstance(images, list | tuple) else [images]
        if turns is None:
            questions = [text] if isinstance(text, str) else list(text or ())
            if images and len(images) != len(questions):
                raise ValueError(f"{len(images)} images for {len(questions)} questions; give one each, or give turns")
            turns = [[Turn("user", question, int(bool(images)))] for question in questions]
        wanted = sum(turn.images for conversation in turns for turn in conversation)
        if wanted != len(images):
            raise ValueError(f"the turns hold {wanted} images, but {len(images)} were given")
        prompts = [
            self._prompts.encode(conversation, image_tokens=self.image_tokens, system=system, generation=True).input_ids
            for conversation in turns
        ]
        length = max(map(len, prompts))
        ids = np.full((len(prompts), length), self._prompts.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = prompt
            mask[row, length - len(prompt) :] = 1
        data = {"input_ids": ids, "attention_mask": mask}
        if images:
            data["pixel_values"] = np.stack([preprocess(read_image(image), self.recipe) for image in images])
        return BatchFeature(data, tensor_type=return_tensors)

    def batch_decode(self, ids, **options) -> list[str]:
        """Token ids ``[B, T]`` to texts, control tokens left out."""
        return self.tokenizer.batch_decode(ids, **({"skip_special_tokens": True} | options))

    def save_pretrained(self, folder: str | Path, **_options) -> list[str]:
        """Write tokenizer.json and the recipe."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        recipe = {"image": asdict(self.recipe), "prompt": {"system": SYSTEM_PROMPT, "image_first": True}}
        (folder / RECIPE_FILE).write_text(json.dumps(recipe, indent=1) + "\n", "utf-8")
        return [str(folder / "tokenizer.json"), str(folder / RECIPE_FILE)]

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_options) -> "ParrotProcessor":
        """Read a checkpoint folder: tokenizer.json, the recipe, and config.json for the number of image positions."""
        from .configuration import ParrotConfig

        folder = Path(folder)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>", pad_token="<|endoftext|>"
        )
        config = ParrotConfig.from_pretrained(folder)
        stored = json.loads((folder / RECIPE_FILE).read_text("utf-8"))
        recipe = from_mapping(ImageRecipe, stored["image"], where=str(folder / RECIPE_FILE))
        return cls(tokenizer, recipe, config.image_tokens)
