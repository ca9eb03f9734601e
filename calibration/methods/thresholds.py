"""Where to clip what is rounded: four thresholds of a distribution of absolute values, from its histograms by language.

Every method asks each language by itself and heeds the neediest, because a pooled histogram is mostly that of whoever
has most rows:

minmax      the largest value of all.
percentile  the largest of the languages' own 99.99th percentiles.
entropy     the largest of the languages' own thresholds of least KL divergence between the clipped distribution and its
            rounding to 128 levels (Migacz, "8-bit inference with TensorRT", GTC 2017).
mse         the one for which the worst language's relative squared error is least: E[(x - q(x))²] / E[x²].

onnxruntime.quantization has the first three. Its calibrators keep every activation of every sample in memory, know no
languages, and round counts to whole numbers in the entropy's distributions; its percentile is what the tests hold ours
against.
"""

import numpy as np

BINS = 2048
PERCENTILE = 0.9999
_LEVELS = 128
# Candidates of the two searches: all of 2,048 bins would cost sixteen times as long for thresholds 0.1 % apart.
_STEP = 16
# Places in a bin where its error is looked up, and the fewest bins that are ever kept.
_PLACES, _FEWEST = 8, 64


def thresholds(histograms: np.ndarray, largest: float) -> dict[str, float]:
    """The threshold of each method. ``histograms`` int64 ``[languages, BINS]`` count |x| from 0 to ``largest``.

    Languages without any row are left out. All are ``largest`` where nothing but zeros was seen.
    """
    seen = histograms[histograms.sum(axis=1) > 0].astype(np.float64)
    width = largest / histograms.shape[1]
    if not len(seen) or largest == 0:
        # No input at all: any positive scale has the codes of zero.
        return dict.fromkeys(("minmax", "percentile", "entropy", "mse"), 1.0)
    return {
        "minmax": float(largest),
        "percentile": max(percentile_bin(each) for each in seen) * width,
        "entropy": max(entropy_bin(each) for each in seen) * width,
        "mse": mse_bin(seen) * width,
    }


def clipped(histograms: np.ndarray, largest: float, threshold: float) -> np.ndarray:
    """The share of each language's values in bins beyond ``threshold``: float64 ``[languages]``."""
    first = min(round(threshold / largest * histograms.shape[1]), histograms.shape[1]) if largest else 0
    totals = np.maximum(histograms.sum(axis=1), 1)
    return histograms[:, first:].sum(axis=1) / totals if largest else np.zeros(len(histograms))


def percentile_bin(histogram: np.ndarray) -> int:
    """How many bins hold ``PERCENTILE`` of the values."""
    shares = np.cumsum(histogram) / histogram.sum()
    return int(np.searchsorted(shares, PERCENTILE)) + 1


def entropy_bin(histogram: np.ndarray) -> int:
    """How many bins are kept where the KL divergence of the rounded distribution is least."""
    counts = range(_LEVELS, len(histogram) + 1, _STEP)
    return min(counts, key=lambda count: _divergence(histogram, count))


def _divergence(histogram: np.ndarray, count: int) -> float:
    """D(P‖Q): P keeps ``count`` bins and puts the rest into the last, Q spreads each level over its bins in use."""
    kept = histogram[:count]
    reference = kept.copy()
    reference[-1] += histogram[count:].sum()
    starts = np.arange(_LEVELS) * count // _LEVELS
    used = (reference > 0).astype(np.float64)
    sums, uses = np.add.reduceat(kept, starts), np.add.reduceat(used, starts)
    sizes = np.diff(np.append(starts, count))
    spread = np.repeat(sums / np.maximum(uses, 1), sizes) * used
    share, rounded = reference / reference.sum(), spread / max(spread.sum(), 1)
    # A bin that holds values and has no share after rounding would be infinitely bad; it is very bad.
    where = share > 0
    return float((share[where] * np.log(share[where] / np.maximum(rounded[where], 1e-9))).sum())


def mse_bin(histograms: np.ndarray) -> int:
    """How many bins are kept where the worst language's relative squared error is least, on 127 steps."""
    bins = histograms.shape[1]
    # A step may be as narrow as half a bin: each bin is looked at in so many places that steps are told apart.
    places = (np.arange(bins * _PLACES) + 0.5) / _PLACES
    powers = histograms @ _by_bin(places**2)
    best, fewest = bins, np.inf
    for count in range(_FEWEST, bins + 1, _STEP):
        step = count / 127
        rounded = np.minimum(np.rint(places / step), 127) * step
        loss = ((histograms @ _by_bin((places - rounded) ** 2)) / powers).max()
        if loss < fewest:
            best, fewest = count, loss
    return best


def _by_bin(numbers: np.ndarray) -> np.ndarray:
    return numbers.reshape(-1, _PLACES).mean(axis=1)
