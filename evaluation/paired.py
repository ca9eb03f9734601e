"""Two runs over the same questions: an exact test and an interval of the difference, language by language.

McNemar's exact test (McNemar, Psychometrika 12, 1947) looks only at the questions that one run has right and the other
wrong: under the hypothesis that the runs are equally good, each of those falls to either side with probability 1/2.
The interval is Tango's score interval (Tango, Statistics in Medicine 17, 1998), recommended for paired proportions by
Fagerland, Lydersen and Laake (Statistics in Medicine 33, 2014); at a difference of zero its statistic is McNemar's
asymptotic one. Of several languages, p is corrected as Holm does (Scandinavian Journal of Statistics 6, 1979).
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from parrot_evaluation.benchmarks import Measure
from parrot_runtime.errors import InputError

# The standard normal's 97.5 % quantile.
_Z = 1.959963984540054
# MMBench numbers the rotations of a question 10**6 apart.
_ROTATION = 10**6


@dataclass(frozen=True)
class Paired:
    """Units that both runs answered: right in both, in the first only, in the second only, in neither."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def total(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def shares(self) -> tuple[float, float]:
        """The first's and the second's share of right units, in per cent."""
        right = (self.both + self.first_only, self.both + self.second_only)
        return 100 * right[0] / self.total, 100 * right[1] / self.total

    @property
    def points(self) -> float:
        """The second less the first, in points of per cent."""
        return 100 * (self.second_only - self.first_only) / self.total

    @cached_property
    def p(self) -> float:
        """McNemar's exact two-sided p."""
        return mcnemar(self.first_only, self.second_only)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``points``."""
        low, high = tango(self.second_only, self.first_only, self.total)
        return 100 * low, 100 * high


def mcnemar(first_only: int, second_only: int) -> float:
    """Twice the smaller tail of a fair coin's ``first_only + second_only`` throws, at most 1; 1 without any."""
    throws = first_only + second_only
    term = tail = 1
    for heads in range(1, min(first_only, second_only) + 1):
        # Each binomial coefficient from the one before it: whole numbers, and as many steps as there are terms.
        term = term * (throws - heads + 1) // heads
        tail += term
    return min(1.0, 2 * tail / 2**throws)


def tango(more: int, less: int, total: int, z: float = _Z) -> tuple[float, float]:
    """Tango's score interval of ``(more - less) / total``, a difference of paired shares in -1..1.

    ``more`` and ``less`` are the discordant units for and against. The limits are where the score statistic, its
    variance taken at that difference, is ``z`` and ``-z``; it falls with the difference, so halving finds them.
    """
    observed = (more - less) / total

    def statistic(difference: float) -> float:
        # The likeliest share of units against, given the difference: the larger root of a x² + b x + c.
        a, c = 2 * total, -less * difference * (1 - difference)
        b = (2 * total - more + less) * difference - more - less
        against = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = total * (2 * against + difference * (1 - difference))
        distance = more - less - total * difference
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0

    def limit(inside: float, outside: float) -> float:
        if abs(statistic(outside)) <= z:
            return outside
        while abs(outside - inside) > 1e-12:
            middle = (inside + outside) / 2
            if abs(statistic(middle)) <= z:
                inside = middle
            else:
                outside = middle
        return inside

    return limit(observed, -1.0), limit(observed, 1.0)


def holm(ps: Sequence[float]) -> list[float]:
    """Each p corrected for being one of ``len(ps)``, in their order: step down, never below the one before."""
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = largest
    return corrected


def outcomes(measure: Measure, samples: Iterable[Mapping[str, Any]], *, rotated: bool = False) -> dict[Hashable, bool]:
    """Whether each unit of ``measure`` is right, over ``samples`` (lines of ``samples.jsonl``) of one language.

    Units are counted as in :mod:`parrot_evaluation.scoring`: what was left out there is left out here. Where the
    benchmark is ``rotated``, a measure of rows looks at the questions as they were before they were rotated: the tests
    want units that are independent of each other. Raises InputError for a unit that is not known here, and for samples
    that an older version wrote.
    """
    unit = measure.unit
    groups: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    for sample in samples:
        if sample["kind"] in measure.kinds and not (rotated and unit == "row" and _is_rotation(sample["index"])):
            groups[_key(unit, sample)].append(sample)
    result: dict[Hashable, bool] = {}
    for key, group in groups.items():
        verdicts = [_verdict(measure.judge, sample) for sample in group]
        if _is_whole(unit, group) and None not in verdicts:
            result[key] = all(verdicts)
    return result


def _is_rotation(index: str) -> bool:
    return index.isdecimal() and int(index) >= _ROTATION


def _key(unit: str, sample: Mapping[str, Any]) -> Hashable:
    try:
        if unit == "row":
            return sample["index"]
        if unit == "pair":
            return sample["category"], sample["image_id"]
        if unit == "picture":
            return sample["category"], sample["image_path"] or sample["image_id"]
        if unit == "circle":
            return int(sample["index"]) % _ROTATION
    except KeyError as error:
        raise InputError(_older(error.args[0])) from error
    raise InputError(f"runs cannot be compared by {unit!r}; name other measures with --measure")


def _is_whole(unit: str, group: Sequence[Mapping[str, Any]]) -> bool:
    if unit == "circle":
        return any(int(sample["index"]) < _ROTATION for sample in group)
    if unit == "picture":
        return len(group) == 2
    if unit == "pair":
        if any("truth" not in sample for sample in group):
            raise InputError(_older("truth"))
        return {sample["truth"] for sample in group} == {"yes", "no"}
    return True


def _older(key: str) -> str:
    return f"these samples have no {key!r}; run parrot-eval again: answers are kept, nothing is asked twice"


def _verdict(judge: str, sample: Mapping[str, Any]) -> bool | None:
    return sample[{"language": "in_language", "kit": "kit_right"}.get(judge, "right")]


def pair(first: Mapping[Hashable, bool], second: Mapping[Hashable, bool]) -> Paired | None:
    """Count the units of both; None where there are none."""
    counts = dict.fromkeys(((True, True), (True, False), (False, True), (False, False)), 0)
    for key in first.keys() & second.keys():
        counts[first[key], second[key]] += 1
    return Paired(*counts.values()) if any(counts.values()) else None
