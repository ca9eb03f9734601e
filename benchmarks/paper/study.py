"""One study: its settings, where its files lie, and the jobs it takes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parrot_benchmarks.paper.variants import CLAIMS, VARIANTS, Variant
from parrot_runtime.errors import InputError
from parrot_runtime.publish import write_file
from parrot_train.checkpoint import read_run
from parrot_train.nano.write import SHARES

# nano's recipe: captions and passes over them, conversations, and stage 2's shares in `SHARES`.
CAPTIONS, CAPTION_PASSES, CONVERSATIONS = 12_000, 3, 20_000
STUDY_FILE = "study.json"
SCALE = 0.25
"""With which all claims and three seeds take some hours on two cores."""
CAPTIONS_PART = "captions"
QUESTIONS = 820
"""Of each language in nano's evaluation."""
FIRST_SEEDS, SEEDS = 3, 10
"""Unless more are asked for, and at most: the report's quantiles of Student's t end there."""


@dataclass(frozen=True)
class Study:
    """What all results of one folder share.

    scale: the fraction of nano's data, and with it of its steps. questions: asked in each language. settings:
    ``section.key=value`` for every training, over what the variants say.
    """

    folder: Path
    scale: float
    questions: int
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise InputError(f"--scale is {self.scale:g}; expected a fraction of nano's steps, above 0 and at most 1")

    @property
    def settled(self) -> dict[str, Any]:
        """What two sets of results must share to be compared."""
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name != "folder"}))

    def check(self) -> None:
        """Raise InputError for a folder of another study. Nothing is written."""
        path = self.folder / STUDY_FILE
        if path.is_file() and (found := _settled(path)) != self.settled:
            raise InputError(f"{path}: holds a study with {found}, not {self.settled}; give another folder with -o")

    def keep(self) -> None:
        """Write ``study.json`` where there is none. Raises InputError for a folder of another study."""
        self.check()
        path = self.folder / STUDY_FILE
        if not path.is_file():
            write_file(path, json.dumps(self.settled, indent=1).encode())

    def take(self, figures: Path) -> int:
        """Keep the results of ``figures``, which a report left, that are not here; how many those were.

        Raises InputError where they are of another study, or are no results; nothing is kept then.
        """
        results = self._told(figures)
        new = [name for name in results if not self.result(*name).is_file()]
        for name in new:
            self.keep_result(results[name])
        return len(new)

    def check_report(self, into: Path, coming: Iterable[tuple[str, int]] = ()) -> None:
        """Raise InputError where the report ``into`` has results, or is of a study, that this folder has not.

        ``coming`` are those, by variant and seed, that will be there when it is written.
        """
        figures = into.with_suffix(".json")
        if not figures.is_file():
            return
        coming = set(coming)
        lost = [name for name in self._told(figures) if name not in coming and not self.result(*name).is_file()]
        if lost:
            raise InputError(
                f"{figures}: has {len(lost)} results that {self.folder} lacks, and would lose them; start from them "
                f"with `python -m parrot_benchmarks.paper --take {figures}`, or name another report"
            )

    def _told(self, figures: Path) -> dict[tuple[str, int], Mapping[str, Any]]:
        """The results in the .json beside a report, by variant and seed. Raises InputError for other files."""
        try:
            told = json.loads(figures.read_text("utf-8"))
            other, results = told["study"], {(each["variant"], each["seed"]): _result(each) for each in told["results"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{figures}: expected the .json that lies beside a report ({error})") from error
        if other != self.settled:
            raise InputError(f"{figures}: is of a study with {other}, not {self.settled}")
        return results

    @classmethod
    def read(cls, folder: Path) -> "Study":
        """The study of ``folder``. Raises InputError where there is none."""
        path = folder / STUDY_FILE
        if not path.is_file():
            raise InputError(
                f"{path}: there is no such file; run `python -m parrot_benchmarks.paper -o {folder}` first"
            )
        data = _settled(path)
        return cls(folder, data["scale"], data["questions"], tuple(data["settings"]))

    # --- files ------------------------------------------------------------------------------------------------------
    @property
    def work(self) -> Path:
        """Data, weights and logs: what the results do not need."""
        return self.folder / "work"

    def result(self, variant: str, seed: int) -> Path:
        """Where the result of a variant and seed is kept."""
        return self.folder / "results" / f"{variant}.{seed}.json"

    def keep_result(self, result: Mapping[str, Any]) -> None:
        """Write one result to its place."""
        text = json.dumps(result, indent=1) + "\n"
        write_file(self.result(result["variant"], result["seed"]), text.encode())

    def data(self, seed: int) -> Path:
        """The pictures and questions of a seed; see `parrot_benchmarks.paper.world`."""
        return self.work / f"data-{seed}"

    def stage1(self, encoder: str, llm: str, seed: int) -> Path:
        """The run folder of a stage 1."""
        return self.work / f"stage1-{encoder}-{llm}-{seed}"

    def stage2(self, variant: str, seed: int) -> Path:
        """The run folder of a stage 2: the same for all that share it, and whichever of them are answered already."""
        return self.work / f"stage2-{sharing(variant)[0]}-{seed}"

    def count(self, code: str, part: int = 0) -> int:
        """Conversations in ``part`` of a language; English has a second part for `Variant.more_english` alone."""
        share = 1 - SHARES["en"] if (code, part) == ("en", 1) else SHARES[code]
        return max(1, round(CONVERSATIONS * share * self.scale))

    @property
    def captions(self) -> int:
        """Captions of stage 1."""
        return max(1, round(CAPTIONS * self.scale))

    def parts(self, variant: Variant) -> list[tuple[str, int]]:
        """The data parts, language and number, that a variant's stage 2 reads."""
        english = [("en", 0), ("en", 1)] if variant.more_english else [("en", 0)]
        return english + [(code, part) for code in variant.languages for part in range(variant.times)]


def _settled(path: Path) -> dict[str, Any]:
    """What ``study.json`` holds. Raises InputError where that is something else."""
    try:
        found = json.loads(path.read_text("utf-8"))
        Study(path.parent, float(found["scale"]), int(found["questions"]), tuple(found["settings"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected scale, questions and settings of a study ({error})") from error
    return found


def _result(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """``data``, if it is a variant's result. Raises ValueError, KeyError or TypeError."""
    variant, seed = data["variant"], data["seed"]
    if variant not in VARIANTS or not isinstance(seed, int) or not 1 <= seed <= SEEDS:
        raise ValueError(f"there is no result of {variant!r} with seed {seed!r}")
    if data["training"] != VARIANTS[variant].training:
        raise ValueError(f"{variant} was measured with {data['training']}, not {VARIANTS[variant].training}")
    for cell in data["cells"]:
        cell["level"], cell["language"], cell["measure"], int(cell["right"]), int(cell["total"])
    return data


def sharing(variant: str) -> list[str]:
    """The names of all variants that share the weights of ``variant``, itself among them, in the study's order."""
    return [name for name, each in VARIANTS.items() if each.training == VARIANTS[variant].training]


def part_name(code: str, part: int) -> str:
    """What the folder and the file of a data part are called."""
    return f"{code}-{part}"


def conversations(study: Study, variant: Variant) -> int:
    """In a variant's stage 2."""
    return sum(study.count(*part) for part in study.parts(variant))


@dataclass(frozen=True)
class Job:
    """The work of one process; ``needs`` are the jobs that come before it.

    ``kind`` is ``questions``, ``data``, ``encoder``, ``llm``, ``stage1`` or ``stage2``; ``what`` a data part, a
    backbone, two of them, or the variants that one model answers for, joined by ``+``.
    """

    kind: str
    what: str
    seed: int = 0
    needs: tuple["Job", ...] = ()

    @property
    def name(self) -> str:
        """``kind/what/seed``."""
        return f"{self.kind}/{self.what}/{self.seed}"


QUESTIONS_JOB = Job("questions", "nano")


def chosen_variants(only: Sequence[str]) -> list[Variant]:
    """The variants of the claims ``only``, or of all, each once. Raises InputError for an unknown claim."""
    keys = [claim.key for claim in CLAIMS]
    for key in only:
        if key not in keys:
            raise InputError(f"--only {key}: no such claim; known are {', '.join(keys)}")
    rows = [name for claim in CLAIMS if not only or claim.key in only for name in claim.rows]
    return [VARIANTS[name] for name in dict.fromkeys(rows)]


def jobs(study: Study, variants: Sequence[Variant], seeds: Iterable[int]) -> list[Job]:
    """The jobs of all results that are not there yet, each after those it needs.

    They go seed by seed, so that a study that is cut has all claims with fewer seeds.
    """
    made: dict[Job, None] = {}
    for seed in seeds:
        groups: dict[str, list[Variant]] = {}
        for variant in variants:
            if not finished(study, variant, seed):
                groups.setdefault(json.dumps(variant.training), []).append(variant)
        for group in groups.values():
            encoder, llm = group[0].start
            before = [Job("data", CAPTIONS_PART, seed)]
            before += [Job("encoder", encoder)] if encoder != "english" else []
            before += [Job("llm", llm)] if llm != "shipped" else []
            first = Job("stage1", f"{encoder}+{llm}", seed, tuple(before))
            parts = [Job("data", part_name(*part), seed) for part in study.parts(group[0])]
            what = "+".join(variant.name for variant in group)
            last = Job("stage2", what, seed, (QUESTIONS_JOB, first, *parts))
            made |= dict.fromkeys((QUESTIONS_JOB, *before, first, *parts, last))
    return [job for job in made if not done(study, job)]


def done(study: Study, job: Job) -> bool:
    """Whether what later jobs need of ``job`` is there; of a stage 2 only its result counts, which ``jobs`` asks."""
    if job.kind == "stage1":
        return (read_run(output(study, job)) or {}).get("status") == "finished"
    return job.kind != "stage2" and output(study, job).is_dir()


def output(study: Study, job: Job) -> Path:
    """The folder that ``job`` leaves."""
    if job.kind == "data":
        return study.data(job.seed) / job.what
    if job.kind == "stage1":
        return study.stage1(*job.what.split("+"), job.seed)
    if job.kind == "stage2":
        return study.stage2(job.what.split("+")[0], job.seed)
    return study.work / f"{job.kind}-{job.what}"


def finished(study: Study, variant: Variant, seed: int) -> bool:
    """Whether the result is there. Raises InputError for one of another recipe under this name."""
    path = study.result(variant.name, seed)
    if not path.is_file():
        return False
    check_recipe(path, json.loads(path.read_text("utf-8")), variant)
    return True


def check_recipe(path: Path, result: Mapping[str, Any], variant: Variant) -> None:
    """Raise InputError where ``result``, which ``path`` keeps, was not measured with the recipe of ``variant``."""
    stored = result["training"]
    if stored != variant.training:
        raise InputError(f"{path}: was measured with {stored}, not {variant.training}; remove it, or give another -o")
