"""The benchmarks, as data: their files, how they are asked, and what is counted.

A new benchmark of TSV files is a new entry. Scorings are named after who set them: ``kit`` is VLMEvalKit's, ``paper``
that of section 2.4 of the Parrot paper. ``docs/evaluation.md`` says where the facts are from.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from parrot_evaluation.tsv import Form, Kind, file_codes
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES, FURTHER_CODES, parse_languages
from parrot_runtime.strict import nearest


@dataclass(frozen=True)
class Measure:
    """One number per language and category.

    ``kinds``: the rows it looks at. ``unit``: what is counted once: a row; a ``pair``, the Yes/No rows of one picture
    in one category, of which one says Yes and one No, all right together; a ``picture``, the two rows of one picture in
    one category, both right; a ``circle``, the rows whose ``index % 10**6`` agrees, all right together. ``judge``: who
    says what is right: the ``multilingual`` or the ``kit``'s extraction, the ``exact`` text of an open answer, or its
    ``language``, where rows of undetermined language are left out.
    """

    name: str
    heading: str
    explanation: str
    kinds: tuple[Kind, ...]
    unit: Literal["row", "pair", "picture", "circle"]
    judge: Literal["multilingual", "kit", "exact", "language"]


@dataclass(frozen=True)
class Benchmark:
    """``file`` has ``{code}`` where a language's code stands; ``english`` is the published name where there is none.

    ``languages`` are asked unless others are named; where ``as_found``, all whose files are in the folder, of these
    and ``further``. ``yes_no``: whether Yes/No questions show their two options with the letter instruction, or stand
    plain. ``only_pictures``: rows without a picture are left out, as the kit leaves them out. ``composite``: the name
    of the figures that are more than counts. ``source``: where the user gets the files, None where the project makes
    them."""

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
    english: str | None = None
    as_found: bool = False
    only_pictures: bool = False
    composite: Literal["mme", "judge"] | None = None

    @property
    def form(self) -> Form:
        """What its rows without options are."""
        if self.composite == "judge":
            return "judged"
        return "yes_no" if self.yes_no == "plain" else "text"

    @property
    def rotated(self) -> bool:
        """Whether its rows are rotations of fewer questions, so that rows are not independent of each other."""
        return any(measure.unit == "circle" for measure in self.measures)

    def file_names(self, language: str) -> list[str]:
        """How the file of ``language`` may be called, the likeliest first."""
        named = [self.file.format(code=code) for code in file_codes(language)]
        return [self.english, *named] if self.english and language == "en" else named


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


_ONCE = "in an interval, and between runs, a question counts once"
_PAIRS_RIGHT = "paper scoring: both Yes/No questions of a picture right"
_OPEN = Measure("open", "open", "open answers equal to the reference, normalised", ("open",), "row", "exact")


def _english(name: str, title: str, file: str, **more: Any) -> Benchmark:
    """A benchmark published in English as ``file``.tsv; translations are asked too where they are in the folder."""
    return Benchmark(
        name=name,
        title=title,
        file=f"{file}_{{code}}.tsv",
        english=f"{file}.tsv",
        languages=("en",),
        further=tuple(code for code in CODES if code != "en"),
        as_found=True,
        **more,
    )


def _choices(name: str, title: str, file: str, licence: str, source: str, **more: Any) -> Benchmark:
    """Plain accuracy over multiple-choice rows; open rows, should the file have any, are told apart."""
    measures = (*_both("all", "all rows", "kit scoring: rows right", _ANY, "row"), _OPEN, _LANGUAGE)
    return _english(name, title, file, measures=measures, licence=licence, source=source, **more)


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="nano",
            title="nano, held-out pictures",
            file="nano_{code}.tsv",
            measures=(
                *_both("choice", "four-option", "kit scoring: four-option rows right", ("choice",), "row"),
                _both("pairs", "pairs", _PAIRS_RIGHT, ("yes_no",), "pair")[0],
                *_both("yes_no", "yes/no", "kit scoring: Yes/No rows right", ("yes_no",), "row"),
                _OPEN,
                _LANGUAGE,
            ),
            max_new_tokens=160,
            further=FURTHER_CODES,
        ),
        Benchmark(
            name="MMMB",
            title="MMMB",
            file="mmmb_{code}.tsv",
            measures=(
                *_both("all", "kit scoring", "kit scoring: every row by itself", _ANY, "row"),
                *_both("pairs", "paper scoring", _PAIRS_RIGHT, ("yes_no",), "pair"),
                _OPEN,
                _LANGUAGE,
            ),
            licence="CC BY-NC-SA 4.0",
            source="https://huggingface.co/datasets/AIDC-AI/Parrot-dataset",
        ),
        Benchmark(
            name="MMBench_dev",
            title="multilingual MMBench, dev",
            file="mmbench_dev_{code}.tsv",
            measures=(
                *_both("circular", "circular", "kit scoring: all rotations of a question right", _ANY, "circle"),
                *_both("all", "all rows", f"every rotation by itself: rows right; {_ONCE}", _ANY, "row"),
                _OPEN,
                replace(_LANGUAGE, explanation=f"{_LANGUAGE.explanation}; {_ONCE}"),
            ),
            licence="CC BY-NC-SA 4.0",
            source="https://huggingface.co/datasets/AIDC-AI/Parrot-dataset",
        ),
        _english(
            "MME",
            "MME",
            "MME",
            yes_no="plain",
            measures=(
                *_both("accuracy", "acc", "kit scoring: questions right", ("yes_no",), "row"),
                *_both("plus", "acc+", "kit scoring: both questions of a picture right", ("yes_no",), "picture"),
                _LANGUAGE,
            ),
            composite="mme",
            licence="academic research only, not to be passed on",
            source="https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
        ),
        _choices(
            "MMStar",
            "MMStar",
            "MMStar",
            "its card states no licence",
            "https://huggingface.co/datasets/Lin-Chen/MMStar",
        ),
        _choices(
            "ScienceQA",
            "ScienceQA, test rows with a picture",
            "ScienceQA_TEST",
            "CC BY-NC-SA 4.0",
            "https://github.com/lupantech/ScienceQA",
            only_pictures=True,
        ),
        _choices(
            "RealWorldQA",
            "RealWorldQA",
            "RealWorldQA",
            "CC BY-ND 4.0",
            "https://huggingface.co/datasets/xai-org/RealworldQA",
        ),
        _choices(
            "SEED-Bench",
            "SEED-Bench, pictures",
            "SEEDBench_IMG",
            "CC BY-NC 4.0",
            "https://huggingface.co/datasets/AILab-CVC/SEED-Bench",
        ),
        _english(
            "LLaVA-Bench",
            "LLaVA-Bench (in the wild)",
            "LLaVABench",
            measures=(_LANGUAGE,),
            composite="judge",
            licence="Apache-2.0; its translations by MBZUAI CC BY 4.0",
            source="https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild",
        ),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark called ``name``, by us or as its file is (``SEEDBench_IMG``), in any case.

    Raises InputError with the nearest known name.
    """
    for known, benchmark in BENCHMARKS.items():
        names = (known, (benchmark.english or known).removesuffix(".tsv"))
        if name.lower() in (each.lower() for each in names):
            return benchmark
    raise InputError(f"no benchmark '{name}'; known are {', '.join(BENCHMARKS)}{nearest(name, BENCHMARKS)}")


def find_files(benchmark: Benchmark, folder: Path, languages: tuple[str, ...]) -> dict[str, Path]:
    """The file of every language, in any case. Raises InputError that names every one missing."""
    found = present_files(benchmark, folder, languages)
    missing = [benchmark.file_names(language)[0] for language in languages if language not in found]
    if missing:
        raise InputError(
            f"{folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there; "
            "add the files, or name the languages you have with --languages"
        )
    return found


def present_files(benchmark: Benchmark, folder: Path, languages: tuple[str, ...]) -> dict[str, Path]:
    """The file of every language that has one in ``folder``, in any case, as named where there are several.

    Raises InputError where there is no folder, or none of several is called as named.
    """
    if not folder.is_dir():
        names = ", ".join(dict.fromkeys(benchmark.file_names(language)[0] for language in languages))
        raise InputError(f"{folder}: there is no such folder; give the one that holds {names} with --data")
    present: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".tsv":
            present.setdefault(path.name.lower(), []).append(path)
    found = {}
    for language in languages:
        name = next((name for name in benchmark.file_names(language) if name.lower() in present), None)
        if name is not None:
            found[language] = _one_of(present[name.lower()], name)
    return found


def _one_of(paths: list[Path], name: str) -> Path:
    """Of files whose names differ only in case, the one that is called ``name`` to the letter, or the only one."""
    if len(paths) == 1:
        return paths[0]
    exact = next((path for path in paths if path.name == name), None)
    if exact is None:
        raise InputError(
            f"{paths[0].parent}: {' and '.join(path.name for path in paths)} differ only in case, and either may be "
            f"meant; call the right one {name}"
        )
    return exact


def choose_languages(benchmark: Benchmark, named: str | None, folder: Path | None) -> tuple[str, ...]:
    """The languages to ask in: those named (``--languages``), else those found or those of the benchmark.

    Raises InputError for one the benchmark does not have.
    """
    if named is None and benchmark.as_found and folder is not None and folder.is_dir():
        return (
            tuple(present_files(benchmark, folder, (*benchmark.languages, *benchmark.further))) or benchmark.languages
        )
    return parse_languages(named, benchmark.languages, further=benchmark.further)
