"""What is kept of the inputs of products: numbers per language and channel, and a few rows, never all.

Two passes. The first finds peaks, means, a sample of rows and, for GPTQ, the second moments; factors are searched on
these. The second counts what is left when the factors are divided out, whose largest value is known by then, so that
all languages have histograms over the same bins.
"""

from dataclasses import dataclass, field

import numpy as np

from parrot_calibration.methods.errors import Kept
from parrot_calibration.methods.thresholds import BINS
from parrot_runtime.errors import InputError

# Rows kept of each language and product: with 7B's 18,944 channels, 58 MiB of float32 for six languages.
KEPT_ROWS = 128
# Rows of the moments that are added to at a time.
_PANEL = 1024


@dataclass
class FirstPass:
    """Of one input of products with ``channels`` channels, over ``languages`` languages.

    ``rows`` int64 ``[L]``, ``peaks`` and ``sums`` of absolute values ``[L, K]``, ``gram`` Σ x·xᵀ ``[K, K]`` where it is
    wanted, in which every language is to weigh the same, however many rows it has; it is symmetric, and what stands
    below its diagonal is not all there.
    """

    name: str
    languages: tuple[str, ...]
    channels: int
    seed: int
    wants_gram: bool = False
    rows: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.languages)
        self.rows = np.zeros(count, np.int64)
        self.peaks = np.zeros((count, self.channels), np.float32)
        self.sums = np.zeros((count, self.channels))
        self._kept: list[np.ndarray] = [np.empty((0, self.channels), np.float32) for _ in self.languages]
        self._tickets: list[np.ndarray] = [np.empty(0) for _ in self.languages]
        self._chance = np.random.default_rng(self.seed)
        # In float32: a 7B model's widest product has 18,944 channels, and this is 1.3 GiB as it is.
        self.gram = np.zeros((self.channels, self.channels), np.float32) if self.wants_gram else None

    def add(self, values: np.ndarray, language: int, chosen: np.ndarray, share: float, sample: str) -> None:
        """Take ``values`` ``[rows, K]`` of a sample. Rows numbered in ``chosen`` may be kept and enter the moments.

        ``share`` is the weight of such a row in the moments.

        Raises InputError that names the product and the sample where a number is NaN or infinite.
        """
        if not np.isfinite(values).all():
            raise InputError(
                f"{sample}: {self.name} takes NaN or infinity in float32 already; leave the sample out, or train again "
                "from the last good checkpoint"
            )
        sizes = np.abs(values)
        self.rows[language] += len(values)
        self.peaks[language] = np.maximum(self.peaks[language], sizes.max(axis=0))
        self.sums[language] += sizes.sum(axis=0)
        values = values[chosen]
        if self.gram is not None:
            for first in range(0, self.channels, _PANEL):
                own = slice(first, first + _PANEL)
                self.gram[own, first:] += np.float32(share) * (values[:, own].T @ values[:, first:])
        # A ticket for each row, of which the lowest stay: every row of a language is as likely, in whatever order.
        tickets = np.concatenate([self._tickets[language], self._chance.random(len(values))])
        rows = np.concatenate([self._kept[language], values])
        stay = np.sort(np.argsort(tickets, kind="stable")[:KEPT_ROWS])
        self._tickets[language], self._kept[language] = tickets[stay], rows[stay]

    def moments(self, spread: np.ndarray | None) -> np.ndarray | None:
        """``gram`` of inputs that are divided by ``spread`` ``[K]``, handed over: it is too large to be there twice."""
        gram, self.gram = self.gram, None
        if gram is not None and spread is not None:
            gram /= spread
            gram /= spread[:, None]
        return gram

    @property
    def kept(self) -> Kept:
        """The rows that were kept."""
        counts = [len(rows) for rows in self._kept]
        return Kept(np.concatenate(self._kept), np.repeat(np.arange(len(counts)), counts), len(counts))

    @property
    def peak(self) -> np.ndarray:
        """The largest absolute value of each channel, over all languages: ``[K]``."""
        return self.peaks.max(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """The mean absolute value of each channel, every language weighing the same: float32 ``[K]``."""
        seen = self.rows > 0
        return (self.sums[seen] / self.rows[seen, None]).mean(axis=0).astype(np.float32)


class SecondPass:
    """Histograms by language of |x / spread|, int64 ``[L, BINS]`` from 0 to ``largest``."""

    def __init__(self, first: FirstPass, spread: np.ndarray | None) -> None:
        self._spread = np.ones(1, np.float32) if spread is None else spread
        self.largest = float((first.peak / self._spread).max())
        self.counts = np.zeros((len(first.languages), BINS), np.int64)

    def add(self, values: np.ndarray, language: int) -> None:
        """Count ``values`` ``[rows, K]``."""
        if self.largest > 0:
            sizes = np.abs(values / self._spread).reshape(-1)
            self.counts[language] += np.histogram(sizes, BINS, (0.0, self.largest))[0]
