"""Several files made one, by weights or by temperature: ``parrot-train data mix``.

Records fall into groups, by dataset, by language, or by both. With n_g records and the weight w_g (1 where none is
given), group g gets of the samples the share

    p_g  ∝  w_g · n_g^(1/T)

T = 1 keeps the groups' sizes, a higher temperature lifts the small ones, and T = inf makes all groups equal: then the
weights alone are the shares. Numbers are rounded by largest remainder. A group gives each of its records once before
any a second time; which ones, and the order of all, hang on the seed alone.
"""

import math
import re
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from parrot_runtime.errors import InputError
from parrot_runtime.strict import nearest
from parrot_train.data.json_list import encode, image_mover, publish_list
from parrot_train.data.partition import seeded
from parrot_train.data.records import good_records
from parrot_train.data.stats import DATASET_KEY, dataset_of, language_of
from parrot_train.data.survey_report import table

By = Literal["dataset", "language", "dataset/language"]


@dataclass(frozen=True)
class Group:
    """A group of a mixture: how many records there are, its share, how many samples it gives, how often the most drawn
    record stands among them."""

    name: str
    records: int
    weight: float
    share: float
    samples: int
    repeats: int


@dataclass(frozen=True)
class Mixture:
    """What was written: ``samples`` records in ``file``."""

    file: str
    sha256: str
    seed: int
    temperature: float
    by: By
    samples: int
    groups: tuple[Group, ...]


def parse_weights(text: str | None) -> dict[str, float]:
    """``"a=2,b=0.5"`` → those weights. Raises InputError."""
    weights: dict[str, float] = {}
    for entry in filter(None, re.split(r"[,\s]+", text or "")):
        name, separator, number = entry.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not separator or not name or name in weights or not 0 <= weight < math.inf:
            raise InputError(f"--weights {entry}: expected one weight of 0 or more for each name, such as sharegpt4v=2")
        weights[name] = weight
    return weights


def shares(sizes: Mapping[str, int], weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """p_g of each group of ``sizes``. Raises InputError for weights of groups there are not, or of nothing but 0."""
    for name in weights:
        if name not in sizes:
            raise InputError(
                f"--weights {name}: there is no such group; there are {', '.join(sizes)}{nearest(name, sizes)}"
            )
    if not temperature > 0:
        raise InputError(f"--temperature {temperature:g}: expected a number above 0, or inf")
    # By logarithms, so that no power overflows at a temperature near 0.
    logs = {
        name: math.log(weights.get(name, 1.0)) + math.log(size) / temperature
        for name, size in sizes.items()
        if weights.get(name, 1.0) > 0
    }
    if not logs:
        raise InputError("--weights gives every group 0; at least one needs more")
    top = max(logs.values())
    parts = {name: math.exp(logs[name] - top) if name in logs else 0.0 for name in sizes}
    return {name: part / math.fsum(parts.values()) for name, part in parts.items()}


def apportion(fractions: Mapping[str, float], samples: int) -> dict[str, int]:
    """Whole numbers that sum to ``samples``, by largest remainder; of equal ones the first gets more."""
    exact = {name: fraction * samples for name, fraction in fractions.items()}
    counts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    missing = samples - sum(counts.values())
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[:missing]:
        counts[name] += 1
    return counts


def mix(
    files: Sequence[Path],
    output: Path,
    *,
    weights: Mapping[str, float],
    temperature: float,
    by: By,
    samples: int | None,
    seed: int,
    images: Path | None,
    force: bool,
) -> Mixture:
    """Write ``samples`` records (by default as many as there are) of ``files`` into ``output``, in a random order.

    Each notes its dataset under ``dataset``. With ``images`` the paths of pictures stay as they are; without, they are
    made relative to ``output``. Raises InputError.
    """
    stems = [path.stem for path in files]
    if len(set(stems)) < len(stems):
        raise InputError(
            f"two of the files have one name ({', '.join(stems)}), so that nothing tells them apart; rename"
        )
    with publish_list(output, force=force) as writer, tempfile.TemporaryFile(dir=output.parent) as store:
        spool, groups = _read(files, store, by, None if images else output.parent)
        sizes = {name: len(groups[name]) for name in sorted(groups)}
        fractions = shares(sizes, weights, temperature)
        counts = apportion(fractions, sum(sizes.values()) if samples is None else samples)
        for record in _drawn(groups, counts, seed):
            writer.add_encoded(spool.read(record))
    told = tuple(
        Group(name, sizes[name], weights.get(name, 1.0), fractions[name], counts[name], -(-counts[name] // sizes[name]))
        for name in sizes
    )
    return Mixture(str(output), writer.sha256, seed, temperature, by, writer.records, told)


def _read(files: Sequence[Path], store: BinaryIO, by: By, target: Path | None) -> tuple["_Spool", dict[str, array]]:
    """All records in a file to read them from in any order, and their numbers by group."""
    spool, groups = _Spool(store), {}
    for path in files:
        move = image_mover(path.parent, target)
        for item, record in good_records(path):
            dataset, language = dataset_of(item, path), language_of(record)
            name = {"dataset": dataset, "language": language}.get(by, f"{dataset}/{language}")
            groups.setdefault(name, array("L")).append(spool.add(encode({**move(item), DATASET_KEY: dataset})))
    return spool, groups


class _Spool:
    """Lines in a temporary file, to be read in any order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._ends = file, array("Q", [0])

    def add(self, line: bytes) -> int:
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))
        return len(self._ends) - 2

    def read(self, number: int) -> bytes:
        self._file.seek(self._ends[number])
        return self._file.read(self._ends[number + 1] - self._ends[number])


def _drawn(groups: Mapping[str, array], counts: Mapping[str, int], seed: int) -> list[int]:
    """The numbers of the records drawn, in the order in which they are written."""
    drawn: list[tuple[bytes, int]] = []
    for name, count in counts.items():
        whole, rest = divmod(count, len(groups[name]))
        order = sorted(groups[name], key=lambda record: seeded(seed, "choose", record))
        for turn in range(whole + 1):
            chosen = order if turn < whole else order[:rest]
            drawn += [(seeded(seed, "order", record, turn), record) for record in chosen]
    return [record for _, record in sorted(drawn)]


def as_data(mixture: Mixture) -> dict[str, Any]:
    """The report as plain data; an infinite temperature is written as text, since JSON has no number for it."""
    temperature = mixture.temperature if math.isfinite(mixture.temperature) else "inf"
    return {**vars(mixture), "temperature": temperature, "groups": [vars(group) for group in mixture.groups]}


def describe(mixture: Mixture) -> list[str]:
    """A table of groups, and the file."""
    rows = [[mixture.by, "records", "weight", "share", "samples", "times at most"]]
    rows += [
        [g.name, f"{g.records:,}", f"{g.weight:g}", f"{100 * g.share:.2f} %", f"{g.samples:,}", str(g.repeats)]
        for g in mixture.groups
    ]
    return [*table(rows), f"{mixture.file}: {mixture.samples:,} records, sha256 {mixture.sha256[:16]}…"]
