"""The benchmarks, as data: their files, how they are asked, and what is counted.

A new benchmark of TSV files is a new entry. Scorings are named after who set them: ``kit`` is VLMEvalKit's, ``paper``
that of section 2.4 of the Parrot paper.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parrot_evaluation.tsv import Kind, file_codes
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES, FURTHER_CODES
from parrot_runtime.strict import nearest


@dataclass(frozen=True)
class Measure:
    """One number per language and category.

    ``kinds``: the rows it looks at. ``unit``: what is counted once: a row; a ``pair``, the Yes/No rows of one picture,
    of which one says Yes and one No, all right together; a ``circle``, the rows whose ``index % 10**6`` agrees, all
    right together. ``judge``: who says what is right: the ``multilingual`` or the ``kit``'s extraction, the ``exact``
    text of an open answer, or its ``language``, where rows of undetermined language are left out.
    """

    name: str
    heading: str
    explanation: str
    kinds: tuple[Kind, ...]
    unit: Literal["row", "pair", "circle"]
    judge: Literal["multilingual", "kit", "exact", "language"]


@dataclass(frozen=True)
class Benchmark:
    """``file`` has ``{code}`` where a language's code stands. ``yes_no``: whether Yes/No questions show their two
    options with the letter instruction, or stand plain. ``source``: where the user gets the files, None where the
    project makes them."""

    name: str
    title: str
    file: str
    measures: tuple[Measure, ...]
    max_new_tokens: int = 512
    yes_no: Literal["options", "plain"] = "options"
    languages: tuple[str, ...] = CODES
    further: tuple[str, ...] = ()
    licence: str | None = None
    source: str | None = None


_ANY: tuple[Kind, ...] = ("choice", "yes_no")
_LANGUAGE = Measure(
    "language",
    "language",
    "answers in the language asked, of those whose language can be determined (letters and digits cannot)",
    ("choice", "yes_no", "open"),
    "row",
    "language",
)


def _both(name: str, heading: str, explanation: str, kinds: tuple[Kind, ...], unit: str) -> tuple[Measure, Measure]:
    """A measure with the multilingual extraction, and beside it with the kit's."""
    return (
        Measure(name, heading, f"{explanation}; multilingual extraction", kinds, unit, "multilingual"),
        Measure(f"{name}_kit", f"{heading} (kit)", f"{explanation}; VLMEvalKit's exact extraction", kinds, unit, "kit"),
    )


_PAIRS = _both("pairs", "pairs", "paper scoring: both Yes/No questions of a picture right", ("yes_no",), "pair")

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="nano",
            title="nano, held-out pictures",
            file="nano_{code}.tsv",
            measures=(
                *_both("choice", "four-option", "kit scoring: four-option rows right", ("choice",), "row"),
                _PAIRS[0],
                *_both("yes_no", "yes/no", "kit scoring: Yes/No rows right", ("yes_no",), "row"),
                Measure("open", "open", "open answers equal to the reference, normalised", ("open",), "row", "exact"),
                _LANGUAGE,
            ),
            max_new_tokens=160,
            further=FURTHER_CODES,
        ),
        Benchmark(
            name="MMMB",
            title="MMMB",
            file="mmmb_{code}.tsv",
            measures=(*_both("all", "all rows", "kit scoring: rows right", _ANY, "row"), *_PAIRS, _LANGUAGE),
            licence="CC BY-NC-SA 4.0",
            source="https://huggingface.co/datasets/AIDC-AI/Parrot-dataset",
        ),
        Benchmark(
            name="MMBench_dev",
            title="multilingual MMBench, dev",
            file="mmbench_dev_{code}.tsv",
            measures=(
                *_both("circular", "circular", "kit scoring: all rotations of a question right", _ANY, "circle"),
                *_both("all", "all rows", "every rotation by itself: rows right", _ANY, "row"),
                _LANGUAGE,
            ),
            licence="CC BY-NC-SA 4.0",
            source="https://huggingface.co/datasets/AIDC-AI/Parrot-dataset",
        ),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark called ``name``, in any case. Raises InputError with the nearest known name."""
    for known, benchmark in BENCHMARKS.items():
        if known.lower() == name.lower():
            return benchmark
    raise InputError(f"no benchmark '{name}'; known are {', '.join(BENCHMARKS)}{nearest(name, BENCHMARKS)}")


def find_files(benchmark: Benchmark, folder: Path, languages: tuple[str, ...]) -> dict[str, Path]:
    """The file of every language, in any case. Raises InputError that names every one missing."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there is no such folder; give the one that holds {_pattern(benchmark)} with --data"
        )
    present = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".tsv"}
    found, missing = {}, []
    for language in languages:
        names = [benchmark.file.format(code=code).lower() for code in file_codes(language)]
        path = next((present[name] for name in names if name in present), None)
        if path is None:
            missing.append(names[0])
        else:
            found[language] = path
    if missing:
        raise InputError(
            f"{folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there; "
            "add the files, or name the languages you have with --languages"
        )
    return found


def _pattern(benchmark: Benchmark) -> str:
    return benchmark.file.format(code="{" + ",".join(file_codes(code)[0] for code in benchmark.languages) + "}")
