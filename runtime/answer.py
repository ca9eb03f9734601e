"""What comes back: an answer, whole or as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from parrot_runtime.stats import Stats

if TYPE_CHECKING:
    import numpy as np

    from parrot_runtime.generation import Finish, Request
    from parrot_runtime.tokenizer import Detokenizer


class Tokens(Protocol):
    """An iterator over the tokens of an answer, which can be told that nobody wants the rest: a generator is one."""

    def __iter__(self) -> Tokens: ...

    def __next__(self) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer and what it cost.

    ``routing``: float32 ``[pictures, experts]``, the share of each expert per picture (rows sum to 1), None without
    pictures or without experts. ``finish``: ``"stop"`` when the model ended it, ``"length"`` when the limit did.
    """

    text: str
    token_ids: tuple[int, ...]
    stats: Stats
    routing: np.ndarray | None
    finish: Finish


@dataclass(frozen=True, eq=False)
class Features:
    """What the decoder reads of one question, and what that is made from.

    ``before``: the projected features H ``[pictures, P, C]``; ``after``: the visual tokens G of Eq. 5, of that shape,
    the same where there are no experts; ``words``: T of Eq. 2 ``[T, C]``. All float32. ``routing`` as in ``Answer``.
    """

    before: np.ndarray
    after: np.ndarray
    words: np.ndarray
    routing: np.ndarray | None


class AnswerStream:
    """An iterator over the pieces of an answer's text; no piece splits a character.

    ``answer`` is the whole, and reads what is left to read. ``close`` stops early and frees what the answer held; it
    may come from another thread than the one that reads, which then finds the end.
    """

    def __init__(
        self,
        request: Request,
        tokens: Tokens,
        detokenizer: Detokenizer,
        on_end: Callable[[Answer], None] | None = None,
    ) -> None:
        self._request, self._tokens = request, tokens
        self._pieces = self._read(request, tokens, detokenizer)
        self._on_end = on_end
        self._answer: Answer | None = None

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises ValueError on a stream that was closed before its end."""
        for _ in self._pieces:
            pass
        if self._answer is None:
            raise ValueError("this stream was closed before the answer's end; there is no whole answer")
        return self._answer

    def close(self) -> None:
        """Stop here; a stream read to its end is closed already."""
        self._request.cancel()
        # A generator that never began does nothing when it is closed, not even for what it was to read from.
        for each in (self._pieces, self._tokens):
            with suppress(ValueError):  # another thread is in it, and comes out at the next token
                each.close()

    def _read(self, request: Request, tokens: Tokens, detokenizer: Detokenizer) -> Iterator[str]:
        text = ""
        try:
            for token in tokens:
                if piece := detokenizer.push(token):
                    text += piece
                    yield piece
            if piece := detokenizer.flush():
                text += piece
                yield piece
        finally:
            tokens.close()
        if request.finish == "cancelled":  # by another thread
            return
        self._answer = Answer(text, tuple(request.tokens), request.stats, request.routing, request.finish)
        if self._on_end is not None:
            self._on_end(self._answer)
