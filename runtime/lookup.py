"""Drafts of an answer's next tokens, taken from where the prompt or the answer said the same before.

An answer often repeats what stands in front of it: an option of the question, an earlier turn, its own list. A draft
is checked by one step over all of its tokens, and kept as far as it is what the model chooses itself (prompt lookup,
Saxena 2023; the check is that of Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding").
So it changes how many steps an answer takes and not its words, but where two tokens are so near that the rounding of
one kernel or the other decides between them (docs/performance.md).
"""

from collections.abc import Sequence

import numpy as np

# As many tokens must be the same before a place is taken for a repetition. On nano's held-out questions drafts behind
# two were right in 42 of 468 tokens, behind three in 29 of 77, behind four in 22 of 58.
MATCH = 3
# What a drafted token costs, right or wrong, as a share of a step. Measured for the 0.5B shape on two cores: int4 0.24,
# fp16 0.03 to 0.06 (docs/performance.md). One number for all, so that a question always takes the same steps.
COST = 0.25
# Drafts begin short, and get long while they are right.
SHORT, LONG = 3, 7


class Lookup:
    """Drafts for one answer behind ``prompt_ids`` int ``[T]``, whose negative entries are a picture's.

    It stops drafting once that has cost more than one step beyond what it saved.
    """

    def __init__(self, prompt_ids: np.ndarray) -> None:
        self._text: list[int] = []
        # MATCH tokens that stand side by side, to the place behind the last of them.
        self._behind: dict[tuple[int, ...], int] = {}
        self._length = SHORT
        self._saved = 1.0
        self._prompt = len(prompt_ids)
        self._extend(prompt_ids.tolist())

    def draft(self, answer: Sequence[int], most: int) -> list[int]:
        """Up to ``most`` tokens that may follow ``answer``, which only grows from call to call."""
        self._extend(answer[len(self._text) - self._prompt :])
        if self._saved < 0 or most < 1:
            return []
        place = self._behind.get(tuple(self._text[-MATCH:]))
        if place is None:
            return []
        drafted = self._text[place : place + min(self._length, most)]
        return drafted[: next((at for at, token in enumerate(drafted) if token < 0), None)]

    def judge(self, drafted: int, right: int) -> None:
        """Of ``drafted`` tokens the first ``right`` were what the model chose."""
        self._saved += right - COST * drafted
        self._length = LONG if right == drafted else SHORT

    def _extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._text.append(token)
            # Those before it have something behind them only now, so what is drafted for never finds itself.
            before = tuple(self._text[-1 - MATCH : -1])
            if len(before) == MATCH and min(before) >= 0:
                self._behind[before] = len(self._text) - 1
