"""The prompt: one template, in token ids, for training and for running. (Vicuna has another: ``vicuna.py``.)

    <|im_start|>system
    You are a helpful assistant.<|im_end|>
    <|im_start|>user
    <image>
    Question<|im_end|>
    <|im_start|>assistant
    Answer<|im_end|>

The control tokens are put here by id. What a person typed is encoded as plain text, so ``<|im_end|>`` or ``<image>``
in a question are letters like any others and end or insert nothing.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from parrot_runtime.errors import InputError, TextError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SYSTEM_PROMPT = "You are a helpful assistant."
IMAGE_PLACEHOLDER = "<image>"
# Marks one image position among the input ids; never a row of the vocabulary.
IMAGE_TOKEN_ID = -200

_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


@dataclass(frozen=True)
class Turn:
    """What one side said; the turn's ``images`` stand before its text."""

    role: Literal["user", "assistant"]
    text: str
    images: int = 0

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise ValueError(f"role is {self.role!r}; expected 'user' or 'assistant'")
        if self.images < 0 or (self.images and self.role != "user"):
            raise ValueError(f"{self.images} images in a turn of the {self.role}; only users bring images")


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """``input_ids``: int64 ``[length]``, IMAGE_TOKEN_ID at image positions.

    ``labels_mask``: bool ``[length]``, true where training supervises: an answer's tokens, its ``<|im_end|>``, and the
    newline after that on turns that are not last.
    """

    input_ids: np.ndarray
    labels_mask: np.ndarray

    @property
    def router_mask(self) -> np.ndarray:
        """bool ``[length]``: the text the router sees (T of Eq. 2): no answers, no image positions."""
        return ~self.labels_mask & (self.input_ids >= 0)


def check_unicode(text: str) -> str:
    """``text`` itself. Raises TextError for a lone surrogate, which no tokenizer can encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text is not valid Unicode: a lone surrogate U+{ord(text[error.start]):04X} at character "
            f"{error.start + 1}; send the text as UTF-8"
        ) from error
    return text


def check_question(question: str) -> str:
    """``question`` itself. Raises TextError for one that is empty, blank, or not Unicode."""
    if not question.strip():
        raise TextError("the question is empty; expected a question in words")
    return check_unicode(question)


class TemplateEncoder(abc.ABC):
    """Turns to token ids, by a template. ``tokenizer`` is set to read special tokens in a text as plain text, for good.

    ``system`` is the text the template begins with unless told otherwise; ``end_id`` ends an answer.
    """

    system: ClassVar[str]
    end_id: int

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer

    @property
    @abc.abstractmethod
    def stop_ids(self) -> frozenset[int]:
        """The ids that end an answer."""

    def encode(
        self, turns: Sequence[Turn], *, image_tokens: int, system: str | None = None, generation: bool = False
    ) -> EncodedPrompt:
        """Encode a conversation; each image takes ``image_tokens`` positions, then a newline.

        With ``generation`` the last turn is the user's and the beginning of the answer to come is added. Raises
        TextError for text that is not Unicode (lone surrogates), ValueError for ``generation`` after an assistant's
        turn.
        """
        system = self.system if system is None else system
        if generation and (not turns or turns[-1].role != "user"):
            raise ValueError("generation needs a conversation whose last turn is the user's")
        for text in (system, *(turn.text for turn in turns)):
            check_unicode(text)
        pieces = Pieces()
        self._write(pieces, turns, image_tokens, system, generation)
        return pieces.join()

    @abc.abstractmethod
    def _write(
        self, pieces: Pieces, turns: Sequence[Turn], image_tokens: int, system: str, generation: bool
    ) -> None: ...

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


class PromptEncoder(TemplateEncoder):
    """Qwen's template, the one at the top of this module.

    Raises InputError for a tokenizer without the control tokens, or one that cannot keep them out of plain text.
    """

    system = SYSTEM_PROMPT

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._start_id, self.end_id, self.pad_id = (self._control_id(token) for token in (_START, _END, _PAD))

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end an answer."""
        return frozenset((self.end_id, self.pad_id))

    def _write(self, pieces: Pieces, turns: Sequence[Turn], image_tokens: int, system: str, generation: bool) -> None:
        pieces.add([self._start_id, *self._plain(f"system\n{system}"), self.end_id, *self._plain("\n")])
        for number, turn in enumerate(turns):
            self._add_turn(pieces, turn, image_tokens)
            if generation or number + 1 < len(turns):
                pieces.add(self._plain("\n"), supervised=turn.role == "assistant")
        if generation:
            pieces.add([self._start_id, *self._plain("assistant\n")])

    def _add_turn(self, pieces: Pieces, turn: Turn, image_tokens: int) -> None:
        pieces.add([self._start_id])
        if turn.role == "assistant":
            # Apart from the answer, because at generation the header is encoded before there is one.
            pieces.add(self._plain("assistant\n"))
            pieces.add([*self._plain(turn.text), self.end_id], supervised=True)
            return
        text = "user\n"
        for _ in range(turn.images):
            pieces.add([*self._plain(text), *[IMAGE_TOKEN_ID] * image_tokens])
            text = "\n"
        pieces.add([*self._plain(text + turn.text), self.end_id])

    def _control_id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise InputError(f"the tokenizer has no token '{token}'; use the tokenizer.json of a Qwen chat model")
        if number in self._plain(token):
            raise InputError(f"the tokenizer does not mark '{token}' as special, so a question could forge it; mark it")
        return number


class Pieces:
    """Ids under construction, each run marked as supervised or not."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._supervised: list[bool] = []

    def add(self, ids: list[int], *, supervised: bool = False) -> None:
        self._ids += ids
        self._supervised += [supervised] * len(ids)

    def join(self) -> EncodedPrompt:
        return EncodedPrompt(np.array(self._ids, np.int64), np.array(self._supervised, np.bool_))
