"""How much a rounding changes what products give, language by language: what every search here makes small."""

from dataclasses import dataclass

import numpy as np

# Outputs that are computed at a time: with 768 rows, 12 MiB.
_OUTPUTS = 4096


@dataclass(frozen=True)
class Kept:
    """Rows that entered a product and were kept: float32 ``[n, K]``, and the number of each one's language ``[n]``."""

    rows: np.ndarray
    language: np.ndarray
    languages: int


def output_errors(kept: Kept, matrix: np.ndarray, rows: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """‖x·Wᵀ - x'·W'ᵀ‖² / ‖x·Wᵀ‖² of each language: float64 ``[languages]``, NaN for one without rows.

    ``matrix`` and ``rounded`` are W and W', float32 ``[N, K]``; ``rows`` is x', and x are the ``kept`` rows.
    """
    wrong, whole = np.zeros(kept.languages), np.zeros(kept.languages)
    for first in range(0, len(matrix), _OUTPUTS):
        part = slice(first, first + _OUTPUTS)
        exact = kept.rows @ matrix[part].T
        off = rows @ rounded[part].T - exact
        np.add.at(wrong, kept.language, (off.astype(np.float64) ** 2).sum(axis=1))
        np.add.at(whole, kept.language, (exact.astype(np.float64) ** 2).sum(axis=1))
    present = np.bincount(kept.language, minlength=kept.languages) > 0
    # A product whose outputs are all zero has no error unless rounding makes one.
    shares = np.where(whole > 0, wrong / np.where(whole > 0, whole, 1), np.where(wrong > 0, np.inf, 0))
    return np.where(present, shares, np.nan)


def worst(errors: np.ndarray) -> float:
    """The error of the language that suffers most."""
    return float(np.nanmax(errors))
