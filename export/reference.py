"""What torch computes for a sample: the truth an exported graph is held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parrot_runtime.errors import ParrotError
from parrot_runtime.image import preprocess
from parrot_runtime.manifest import TOKENIZER_NAME, Manifest
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_runtime.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from parrot_export.samples import Sample
    from parrot_train.model import ParrotForConditionalGeneration


@dataclass(frozen=True)
class Question:
    """A sample made ready: ``pixels`` float32 ``[1, 3, S, S]``, ``ids`` int64 ``[T]``, negative at image positions."""

    language: str
    pixels: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Expected:
    """Everything torch computes on the way to the first tokens of an answer, float32.

    ``features [1, P, C]``, ``text [T', C]`` (the prompt's words), ``visual [1, P, C]``, ``routing [1, E]`` or None,
    ``embeds [T, C]`` (the prompt with the picture in it), ``logits [steps, V]``, ``tokens [steps]`` (their argmax), and
    ``words [steps, C]``, the embeddings of those tokens.
    """

    features: np.ndarray
    text: np.ndarray
    visual: np.ndarray
    routing: np.ndarray | None
    embeds: np.ndarray
    logits: np.ndarray
    tokens: np.ndarray
    words: np.ndarray


def prepare(folder: Path, manifest: Manifest, samples: Sequence["Sample"]) -> list[Question]:
    """The samples as the bundle in ``folder`` has them: its tokenizer, its recipes, by the code the runtime uses."""
    prompts = PromptEncoder(load_tokenizer(folder / TOKENIZER_NAME))
    questions = []
    for sample in samples:
        encoded = prompts.encode(
            [Turn("user", sample.question, 1)],
            image_tokens=manifest.model.image_tokens,
            system=manifest.prompt.system,
            generation=True,
        )
        pixels = preprocess(sample.image, manifest.image)[None]
        questions.append(Question(sample.language, pixels, encoded.input_ids))
    return questions


def expect(model: "ParrotForConditionalGeneration", question: Question, steps: int) -> Expected:
    """Run the model on ``question`` and greedily for ``steps`` tokens over its KV cache.

    Raises ParrotError when the model itself computes NaN or infinity.
    """
    import torch

    with torch.inference_mode():
        ids, pixels = torch.from_numpy(question.ids)[None], torch.from_numpy(question.pixels)
        table = model.get_input_embeddings()
        features = model.get_image_features(pixels)
        text = table(ids[ids >= 0])
        if model.model.moe is None:
            visual, routing = features, None
        else:
            visual, routing = model.model.moe(features, text[None], torch.ones(1, len(text), dtype=torch.bool))
        embeds = torch.empty(ids.shape[1], text.shape[1])
        embeds[ids[0] >= 0], embeds[ids[0] < 0] = text, visual[0]
        logits, tokens = [], []
        output = model(input_ids=ids, pixel_values=pixels, use_cache=True, logits_to_keep=1)
        for _ in range(steps):
            logits.append(output.logits[0, -1])
            tokens.append(logits[-1].argmax())
            step = tokens[-1].reshape(1, 1)
            output = model(input_ids=step, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
        words = table(torch.stack(tokens))
        arrays = (features, text, visual, routing, embeds, torch.stack(logits), torch.stack(tokens), words)
        expected = Expected(*(None if array is None else array.numpy() for array in arrays))
    if not np.isfinite(expected.logits).all():
        raise ParrotError(
            "the checkpoint computes NaN or infinity in torch already, so there is nothing to verify against; "
            "export an earlier checkpoint"
        )
    return expected
