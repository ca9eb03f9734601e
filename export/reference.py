"""What torch computes for a sample: the truth an exported graph is held against."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parrot_runtime.errors import ParrotError
from parrot_runtime.image import ImageRecipe, preprocess
from parrot_runtime.manifest import TOKENIZER_NAME, Manifest, PromptRecipe
from parrot_runtime.prompt import Turn
from parrot_runtime.templates import prompt_encoder
from parrot_runtime.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from parrot_export.samples import Sample
    from parrot_train.model import ParrotForConditionalGeneration


# How many tokens of each answer are compared.
STEPS = 8


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


@dataclass(frozen=True)
class Reference:
    """What torch computes on the samples, ``steps`` tokens of each answer, and which torch it was."""

    questions: tuple[Question, ...]
    answers: tuple[Expected, ...]
    steps: int
    name: str


def compute_reference(
    model: "ParrotForConditionalGeneration",
    questions: Sequence[Question],
    *,
    steps: int = STEPS,
    progress: Callable[[int], None] = lambda _count: None,
) -> Reference:
    """Run ``model`` on every question; ``progress`` is told of each. Raises as ``expect`` does."""
    import torch

    answers = []
    for question in questions:
        answers.append(expect(model, question, steps))
        progress(1)
    return Reference(tuple(questions), tuple(answers), steps, f"torch {torch.__version__}, float32")


def prepare(
    tokenizer: Path, image_tokens: int, image: ImageRecipe, prompt: PromptRecipe, samples: Sequence["Sample"]
) -> list[Question]:
    """The samples as a bundle has them: its tokenizer, its recipes, by the code the runtime uses."""
    prompts = prompt_encoder(load_tokenizer(tokenizer), prompt)
    questions = []
    for sample in samples:
        encoded = prompts.encode(
            [Turn("user", sample.question, 1)],
            image_tokens=image_tokens,
            system=prompt.system,
            generation=True,
        )
        pixels = preprocess(sample.image, image)[None]
        questions.append(Question(sample.language, pixels, encoded.input_ids))
    return questions


def prepare_for(folder: Path, manifest: Manifest, samples: Sequence["Sample"]) -> list[Question]:
    """``prepare`` for the bundle in ``folder``."""
    tokens = manifest.model.image_tokens
    return prepare(folder / TOKENIZER_NAME, tokens, manifest.image, manifest.prompt, samples)


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
