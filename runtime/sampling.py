"""From logits to the next token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parrot_runtime.errors import InputError, ParrotError

# Beyond these nothing changes any more but that a logit is no longer a number.
_LEAST_TEMPERATURE = 1e-3
_MOST_PENALTY = 100.0


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. The default is greedy: the most likely token, always.

    ``temperature``: 0 is greedy, higher is more varied. ``top_p``: sample among the fewest tokens whose probabilities
    reach this sum (Holtzman et al. 2020). ``repetition_penalty``: above 1 makes tokens of the answer so far less likely
    (Keskar et al. 2019; the prompt is not counted, so that the question's words stay usable). ``seed``: same seed, same
    answer; None draws a new one each time. Raises InputError for values out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or _LEAST_TEMPERATURE <= self.temperature < math.inf):
            raise InputError(
                f"temperature is {self.temperature}; expected 0 (greedy), or {_LEAST_TEMPERATURE:g} or more"
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; expected above 0, at most 1")
        if not 1 / _MOST_PENALTY <= self.repetition_penalty <= _MOST_PENALTY:
            raise InputError(
                f"repetition_penalty is {self.repetition_penalty}; expected {1 / _MOST_PENALTY:g} to "
                f"{_MOST_PENALTY:g}, 1 for none"
            )
        if self.seed is not None and self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected 0 or more")


GREEDY = Sampling()


def check_logits(logits: np.ndarray) -> None:
    """Raise ParrotError for logits float32 ``[vocab]`` that are no numbers: no text may be made of those."""
    # max() is NaN as soon as one value is, and infinite for +inf; -inf is a token that cannot come.
    if not np.isfinite(logits.max()):
        raise ParrotError("the decoder gave NaN or infinite logits; export the bundle with --fp32")


class Sampler:
    """Chooses the tokens of one answer, by one ``Sampling``."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed) if sampling.temperature > 0 else None

    def __call__(self, logits: np.ndarray, so_far: Sequence[int] = ()) -> int:
        """The next token after logits float32 ``[vocab]``; ``so_far`` are the answer's tokens.

        Raises ParrotError as ``check_logits`` does.
        """
        check_logits(logits)
        if self._sampling.repetition_penalty != 1 and so_far:
            logits = self._penalised(logits, so_far)
        return int(logits.argmax()) if self._random is None else self._draw(logits)

    def _penalised(self, logits: np.ndarray, so_far: Sequence[int]) -> np.ndarray:
        penalty, seen = self._sampling.repetition_penalty, np.unique(so_far)
        logits = logits.copy()
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        return logits

    def _draw(self, logits: np.ndarray) -> int:
        scaled = (logits.astype(np.float64) - logits.max()) / self._sampling.temperature
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        if self._sampling.top_p == 1:
            return int(self._random.choice(len(probabilities), p=probabilities))
        kept = _likeliest(probabilities, self._sampling.top_p)
        return int(self._random.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))


def _likeliest(probabilities: np.ndarray, share: float) -> np.ndarray:
    """Indices of the fewest tokens whose probabilities reach ``share``, likeliest first."""
    # A few hundred tokens nearly always hold it, and sorting a vocabulary of 150,000 costs as much as decoding.
    count = 256
    while count < len(probabilities):
        candidates = np.argpartition(-probabilities, count)[:count]
        if probabilities[candidates].sum() > share:
            break
        count *= 8
    else:
        candidates = np.arange(len(probabilities))
    order = candidates[np.argsort(-probabilities[candidates], kind="stable")]
    # The token that crosses the share belongs to the set, so at least one always does.
    return order[: 1 + int(np.searchsorted(probabilities[order].cumsum(), share))]
