"""Multiple choice without generating: the options' first tokens are scored in one prefill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parrot_runtime.choices import check_options
from parrot_runtime.errors import InputError
from parrot_runtime.prompt import check_unicode
from parrot_runtime.sampling import check_logits

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from parrot_runtime.stats import Stats


@dataclass(frozen=True, eq=False)
class Choice:
    """How likely each option is beside the others (``shares`` sum to 1), what that cost, and the routing as in
    ``Answer``."""

    shares: dict[str, float]
    stats: Stats
    routing: np.ndarray | None

    @property
    def text(self) -> str:
        """The likeliest option; of equals the first."""
        return max(self.shares, key=self.shares.__getitem__)


class OptionScorer:
    """Chooses among the first tokens of ``options`` and keeps their shares.

    Raises InputError as ``check_options`` does, and for two that begin with the same token.
    """

    def __init__(self, tokenizer: Tokenizer, options: Sequence[str]) -> None:
        self.shares: dict[str, float] = {}
        self._options = list(check_options(options))
        self._first: list[int] = []
        for option in options:
            ids = tokenizer.encode(check_unicode(option), add_special_tokens=False).ids
            if ids[0] in self._first:
                other = options[self._first.index(ids[0])]
                raise InputError(
                    f"the options '{other}' and '{option}' begin with the same token, and only that is scored; "
                    "name them by letters in the question, and give those"
                )
            self._first.append(ids[0])

    def __call__(self, logits: np.ndarray, _so_far: Sequence[int] = ()) -> int:
        check_logits(logits)
        scores = logits[self._first].astype(np.float64)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        self.shares = dict(zip(self._options, shares.tolist(), strict=True))
        return self._first[int(scores.argmax())]
