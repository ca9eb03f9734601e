"""What earlier runs of ``parrot-eval`` left, read back: their numbers, samples and answers.

A run is named by its folder (``results/nano/…``) or the ``report.json`` in it, with a label of one's own in front where
wanted: ``int4=results/nano/…``.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from parrot_evaluation.report import SCHEMA_VERSION
from parrot_evaluation.text import printable
from parrot_runtime.errors import InputError
from parrot_runtime.languages import BY_CODE
from parrot_runtime.strict import parse_json

REPORT, SAMPLES, ANSWERS = "report.json", "samples.jsonl", "answers.jsonl"
_KEYS = ("benchmark", "model", "settings", "data", "measures", "cells")
_AGAIN = "run parrot-eval again: answers are kept, nothing is asked twice"
_LISTED = 5


@dataclass(frozen=True)
class Figure:
    """One number of a report: ``value`` and its 95 % interval ``low`` to ``high``, in per cent, of ``total`` units."""

    measure: str
    language: str
    level: str
    group: str
    value: float
    low: float
    high: float
    right: int
    total: int


@dataclass(frozen=True)
class Result:
    """One run. ``label`` names it beside others; ``report`` is its ``report.json`` as plain data."""

    folder: Path
    label: str
    report: dict[str, Any]

    @property
    def benchmark(self) -> str:
        return self.report["benchmark"]

    @property
    def model(self) -> str:
        return self.report["model"]

    @property
    def settings(self) -> dict[str, Any]:
        return self.report["settings"]

    @property
    def languages(self) -> list[str]:
        """In the order they were asked in, which is the project's."""
        return list(self.report["data"])

    @property
    def measures(self) -> dict[str, dict[str, Any]]:
        """Explanation, unit and judge of each measure, those of which nothing was counted left out."""
        counted = {figure.measure for figure in self.figures.values()}
        return {name: each for name, each in self.report["measures"].items() if name in counted}

    @cached_property
    def figures(self) -> dict[tuple[str, str, str, str], Figure]:
        """By measure, language, level and group; empty cells are left out."""
        found = {}
        for cell in self.report["cells"]:
            if cell["value"] is None or cell["interval_95"] is None:
                continue
            key = (cell["measure"], cell["language"], cell["level"], cell["group"])
            found[key] = Figure(*key, cell["value"], *cell["interval_95"], cell["right"], cell["total"])
        return found

    def find(self, measure: str, language: str, level: str = "all", group: str = "") -> Figure | None:
        """The figure of that name, or None where nothing was counted."""
        return self.figures.get((measure, language, level, group))

    def score(self, measure: str, language: str, group: str) -> tuple[float, int] | None:
        """A figure that is more than a share of units, such as a judge's, and of how many; it has no interval."""
        for each in self.report.get("scores", ()):
            if (each["measure"], each["language"], each["group"]) == (measure, language, group):
                return None if each["value"] is None else (each["value"], each["total"])
        return None

    def groups(self, level: str) -> list[str]:
        """The names of the categories, or of the l2-categories, in the files' order."""
        return list(dict.fromkeys(figure.group for figure in self.figures.values() if figure.level == level))

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Every judged answer, as ``samples.jsonl`` has it. Raises InputError where that file is missing or broken."""
        return list(_lines(self.folder / SAMPLES, ("language", "index", "kind", "response", "right")))

    @cached_property
    def answers(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Of every judged answer, by language and index: prompt and picture as ``sample``, and the ``routing``.

        They are those of the samples. An older version's samples lack them and the journal has them, which may have
        been asked other questions since. Raises as above.
        """
        asked = {(each["language"], each["index"]): each for each in self.samples}
        if all("sample" in each for each in asked.values()):
            return asked
        # A report that was set aside lies below the journal that it shares with the one that took its place.
        here, above = self.folder / ANSWERS, self.folder.parent / ANSWERS
        path = above if above.is_file() and not here.is_file() else here
        entries = _lines(path, ("language", "index", "sample"), may_be_cut=True)
        return {key: entry for entry in entries if (key := (entry["language"], entry["index"])) in asked}


def read_results(named: Sequence[str]) -> list[Result]:
    """The runs ``named``, in that order, each with a label of its own among those of its benchmark.

    Labels that would be the same get their folder's hash behind them. Raises InputError for what is no run, or a label
    given twice.
    """
    pairs = [_split(name) for name in named]
    read = [_read(label, path) for label, path in pairs]
    seen = Counter((result.benchmark, result.label) for result in read)
    results = []
    for number, (result, (label, _)) in enumerate(zip(read, pairs, strict=True), start=1):
        if seen[result.benchmark, result.label] > 1:
            if label:
                raise InputError(f"two results are labelled {label!r}; give each a label of its own")
            result = replace(result, label=f"{result.label} {_ending(result.folder, number)}")
        results.append(result)
    return results


def choose_measure(results: Sequence[Result], named: str | None) -> str:
    """``named``, or the first measure of the first run; every run must have it. Raises InputError."""
    if not results[0].measures:
        raise InputError(f"{results[0].folder}: nothing was counted in this run; ask more questions of it")
    measure = named or next(iter(results[0].measures))
    for result in results:
        if measure not in result.measures:
            known = ", ".join(result.measures)
            raise InputError(f"{result.folder}: there is no measure {measure!r} in it; it has {known}")
    return measure


def shared_languages(results: Sequence[Result]) -> list[str]:
    """Every language of any of the runs, in the project's order."""
    asked = {code for result in results for code in result.languages}
    return [code for code in BY_CODE if code in asked]


def _split(name: str) -> tuple[str, Path]:
    label, equals, rest = name.partition("=")
    if equals and not Path(name).exists():
        if not label.strip():
            raise InputError(f"{name}: there is no label before the =; give LABEL=FOLDER, or the folder alone")
        return label.strip(), Path(rest)
    return "", Path(name)


def _read(label: str, path: Path) -> Result:
    file = path / REPORT if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        below = sorted(path.glob(f"*/{REPORT}")) or sorted(path.glob(f"*/*/{REPORT}"))
        if len(below) != 1:
            inside = f"; it holds {', '.join(str(each.parent) for each in below[:_LISTED])}" if below else ""
            raise InputError(f"{path}: there is no {REPORT} in it{inside}; give the folder of one run of parrot-eval")
        file = below[0]
    report = _report(file)
    # A model's name is whatever its folder or server calls it; beside others it is one line that stays in its place.
    result = Result(file.parent, label or printable(str(report["model"])), report)
    try:
        result.figures  # noqa: B018 - read now, so that a broken report is told here
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: its cells are not those of a report ({error!r}); {_AGAIN}") from error
    return result


def _report(file: Path) -> dict[str, Any]:
    try:
        report = parse_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give the folder of a run") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a report of parrot-eval ({error}); run parrot-eval again") from error
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{file}: a report with schema_version {version}, expected {SCHEMA_VERSION}; {_AGAIN}")
    missing = [key for key in _KEYS if key not in report]
    unknown = [code for code in report.get("data", ()) if code not in BY_CODE]
    if missing or unknown:
        wrong = f"it lacks {', '.join(missing)}" if missing else f"it knows a language {unknown[0]!r}"
        raise InputError(f"{file}: {wrong}; {_AGAIN}")
    return report


def _lines(path: Path, keys: Sequence[str], *, may_be_cut: bool = False) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines, each with ``keys``; ``may_be_cut`` drops a last line without an end."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it should stand beside {REPORT}") from error
    for number, line in enumerate(lines, start=1):
        if may_be_cut and not line.endswith(b"\n"):
            return
        try:
            # Not strictly: an answer may hold half of a surrogate pair.
            entry = json.loads(line)
            absent = [key for key in keys if key not in entry]
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: line {number} is broken ({error}); run parrot-eval again") from error
        if absent:
            raise InputError(f"{path}: line {number} lacks {', '.join(absent)}; run parrot-eval again")
        yield entry


def _ending(folder: Path, number: int) -> str:
    """The hash that ends the name of a run's folder; its place in the list where there is none."""
    ending = folder.name.rpartition("-")[2]
    return ending[:6] if len(ending) == 12 else f"({number})"
