"""Factors per input channel that make a product's rounding easier: SmoothQuant's for int8, AWQ's for int4.

SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, Eq. 4): s = max|x|^α / max|W|^(1-α) per channel moves outliers from
inputs, which have one scale, into weights, which have one per output.
AWQ (Lin et al. 2023, arXiv:2306.00978, Eq. 4 and 5): s = mean|x|^α gives the weights of loud channels finer steps.

Both papers search α for the whole, or take 0.5; here it is searched per site, by the error of the site's own products
on kept rows, for the language that suffers most. No factors at all is one of the candidates, so none is worse than
before on these rows.
"""

from dataclasses import dataclass

import numpy as np

from parrot_calibration.methods.errors import Kept, output_errors, worst
from parrot_calibration.methods.rounding import FourBits, int8_all, int8_rows
from parrot_export.folding import Site

SMOOTH_ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
AWQ_ALPHAS = tuple(number / 10 for number in range(1, 11))
# How far factors may lie from their mean: beyond, a channel's weights would leave float16 where they are kept in it.
_SPREAD = 1e3


@dataclass(frozen=True)
class Found:
    """A search's result: ``factors`` float32 ``[channels]``, None where the plain rounding was best; errors ``[L]``."""

    alpha: float
    factors: np.ndarray | None
    plain: np.ndarray
    chosen: np.ndarray


def smooth_factors(site: Site, kept: Kept, peaks: np.ndarray, matrix: np.ndarray) -> Found:
    """SmoothQuant's factors for a site, fitted to int8 inputs and weights.

    ``peaks`` float32 ``[K]`` are the largest absolute inputs of each channel, ``matrix`` float32 ``[N, K]`` the weights
    that read them, one below the other.
    """
    loud, heavy = site.shared(peaks), site.shared(np.abs(matrix).max(axis=0))

    def errors(factors: np.ndarray) -> np.ndarray:
        spread = site.spread_out(factors)
        rows = kept.rows / spread
        limit = float((peaks / spread).max())
        return output_errors(kept, matrix, int8_all(rows, limit), lambda part: int8_rows(part * spread))

    candidates = {alpha: _ratio(loud, heavy, alpha) for alpha in SMOOTH_ALPHAS}
    return _best(candidates, errors, site.channels)


def awq_factors(site: Site, kept: Kept, means: np.ndarray, matrix: np.ndarray, bits: FourBits) -> Found:
    """AWQ's factors for a site, fitted to int4 weights; ``means`` float32 ``[K]`` are mean absolute inputs."""
    loud = site.shared(means)

    def errors(factors: np.ndarray) -> np.ndarray:
        spread = site.spread_out(factors)
        return output_errors(kept, matrix, kept.rows / spread, lambda part: bits.round_trip(part * spread))

    candidates = {alpha: _ratio(loud, np.ones_like(loud), alpha) for alpha in AWQ_ALPHAS}
    return _best(candidates, errors, site.channels)


def _ratio(loud: np.ndarray, heavy: np.ndarray, alpha: float) -> np.ndarray:
    """loud^α / heavy^(1-α), of geometric mean 1; 1 where either is zero, which no factor could help."""
    sound = (loud > 0) & (heavy > 0)
    logs = alpha * np.log(np.where(sound, loud, 1)) - (1 - alpha) * np.log(np.where(sound, heavy, 1))
    logs -= logs[sound].mean() if sound.any() else 0
    factors = np.exp(np.clip(logs, -np.log(_SPREAD), np.log(_SPREAD)))
    return np.where(sound, factors, 1).astype(np.float32)


def _best(candidates: dict[float, np.ndarray], errors, channels: int) -> Found:
    plain = errors(np.ones(channels, np.float32))
    found = Found(0.0, None, plain, plain)
    for alpha, factors in candidates.items():
        with np.errstate(over="ignore", invalid="ignore"):
            left = errors(factors)
        if worst(left) < worst(found.chosen):
            found = Found(alpha, factors, plain, left)
    return found
