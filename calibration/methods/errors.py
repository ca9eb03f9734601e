"""How much a rounding changes what products give, language by language: what every search here makes small."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Rows of a matrix that are taken at a time: in float32, with 7B's 18,944 columns, 74 MiB.
OUTPUTS = 1024


@dataclass(frozen=True)
class Kept:
    """Rows that entered a product and were kept: float32 ``[n, K]``, and the number of each one's language ``[n]``."""

    rows: np.ndarray
    language: np.ndarray
    languages: int


class ErrorSum:
    """‖x·Wᵀ - x'·W'ᵀ‖² / ‖x·Wᵀ‖² of each language, over matrices that come in parts."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._wrong, self._whole = np.zeros(kept.languages), np.zeros(kept.languages)

    def add(self, matrix: np.ndarray, rows: np.ndarray, rounded: np.ndarray) -> None:
        """Outputs of W and W', float32 ``[N, K]``; ``rows`` is x', and x are the kept rows."""
        exact = self._kept.rows @ matrix.T
        off = rows @ rounded.T - exact
        np.add.at(self._wrong, self._kept.language, (off.astype(np.float64) ** 2).sum(axis=1))
        np.add.at(self._whole, self._kept.language, (exact.astype(np.float64) ** 2).sum(axis=1))

    @property
    def errors(self) -> np.ndarray:
        """float64 ``[languages]``, NaN for a language without rows."""
        present = np.bincount(self._kept.language, minlength=self._kept.languages) > 0
        # A product whose outputs are all zero has no error unless rounding makes one.
        some = self._whole > 0
        shares = np.where(some, self._wrong / np.where(some, self._whole, 1), np.where(self._wrong > 0, np.inf, 0))
        return np.where(present, shares, np.nan)


def output_errors(
    kept: Kept, matrix: np.ndarray, rows: np.ndarray, rounded: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The errors of one whole matrix, which ``rounded`` rounds some rows at a time; see ``ErrorSum``."""
    total = ErrorSum(kept)
    for first in range(0, len(matrix), OUTPUTS):
        part = matrix[first : first + OUTPUTS]
        total.add(part, rows, rounded(part))
    return total.errors


def worst(errors: np.ndarray) -> float:
    """The error of the language that suffers most."""
    return float(np.nanmax(errors))
