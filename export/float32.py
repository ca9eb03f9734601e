"""What the checkpoint itself says in float32, which all roundings of it are held against."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parrot_export.reference import Question, expect

if TYPE_CHECKING:
    from parrot_train.model import ParrotForConditionalGeneration


@dataclass(frozen=True, eq=False)
class Asked:
    """A question in tokens, its answer's ``int64 [n]``, and the letters' ids where it has options."""

    question: Question
    answer: np.ndarray
    letters: tuple[int, ...]
    right: int | None


class Float32:
    """The answers of ``model``, for several bundles that are asked the same.

    Greedy answers are all kept; logits are up to ``room`` bytes, those beyond it are computed whenever they are wanted:
    those of a large vocabulary would fill the memory.
    """

    def __init__(self, model: "ParrotForConditionalGeneration", *, room: int = 1 << 30) -> None:
        self._model, self._room = model, room
        self._logits: dict[bytes, np.ndarray] = {}
        self._answers: dict[tuple[bytes, int], list[int]] = {}

    def logits(self, one: Asked) -> np.ndarray:
        """``float32_logits`` of the answer: ``[n, V]``."""
        key = _key(one)
        if key in self._logits:
            return self._logits[key]
        found = float32_logits(self._model, one)
        if found.nbytes <= self._room:
            self._room -= found.nbytes
            self._logits[key] = found
        return found

    def answer(self, one: Asked, limit: int) -> list[int]:
        """The first ``limit`` tokens that greedy decoding gives, or fewer."""
        key = _key(one), limit
        if key not in self._answers:
            self._answers[key] = [int(token) for token in expect(self._model, one.question, limit).tokens]
        return self._answers[key]


def _key(one: Asked) -> bytes:
    """What changes with the picture, the question or the answer."""
    parts = (one.question.pixels, one.question.ids, one.answer)
    return hashlib.sha256(b"".join(hashlib.sha256(np.ascontiguousarray(part)).digest() for part in parts)).digest()


def float32_logits(model: "ParrotForConditionalGeneration", one: Asked) -> np.ndarray:
    """torch's logits before each token of the answer: ``[n, V]``."""
    import torch

    prompt, answer = one.question.ids, one.answer
    ids = np.concatenate([prompt, answer[:-1]])
    words = (ids >= 0) & (np.arange(len(ids)) < len(prompt))
    with torch.inference_mode():
        output = model(
            input_ids=torch.from_numpy(ids)[None],
            pixel_values=torch.from_numpy(one.question.pixels),
            prompt_mask=torch.from_numpy(words)[None],
            logits_to_keep=len(answer),
        )
    return output.logits[0].float().numpy()
