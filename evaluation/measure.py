"""One run of ``parrot-eval``: files, model, answers, report.

This is the one place of the room that imports ``parrot_train``, and only where nano's files are asked for and no folder
is given: the held-out pictures are drawn, not stored.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import click

from parrot_evaluation import composite, tables
from parrot_evaluation.benchmarks import Benchmark, choose_languages, find_benchmark, find_files
from parrot_evaluation.download import download as download_files
from parrot_evaluation.journal import Journal
from parrot_evaluation.judge import Judge, JudgementJournal, judge_answers
from parrot_evaluation.models import Model, ModelOptions, open_model
from parrot_evaluation.options import Download
from parrot_evaluation.prompts import Instruction
from parrot_evaluation.report import Report, build, sample_data, to_data
from parrot_evaluation.results import ANSWERS, REPORT, SAMPLES
from parrot_evaluation.runner import Progress, evaluate
from parrot_evaluation.scoring import Sample
from parrot_evaluation.tsv import Table, read_tsv
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES, FURTHER_CODES
from parrot_runtime.publish import check_output, write_file

DOCUMENT = "report.md"
NANO_FOLDER = Path("runs/nano/evaluation")
FURTHER_NANO_FOLDER = Path("runs/nano/evaluation-further")


def note(line: str) -> None:
    """One line on stderr."""
    click.echo(f"parrot-eval: {line}", err=True)


def run_benchmark(
    *,
    benchmark: str,
    model: str | Path | None,
    data: Path | None,
    languages: str | None,
    limit: int | None,
    output: Path,
    instruction: Instruction,
    skip_missing_images: bool,
    force: bool,
    by_category: bool,
    as_json: bool,
    model_options: ModelOptions = ModelOptions(),  # noqa: B008, frozen
    judge: Judge | None = None,
    download: Download | None = None,
) -> str:
    """Measure and write ``answers.jsonl``, ``samples.jsonl``, ``report.json`` and ``report.md``; the report's text.

    A report of another choice of questions that stands there is set aside, not replaced.
    """
    chosen = find_benchmark(benchmark)
    _check_judge(chosen, judge)
    check_output(output)
    if download is not None:
        download_files(chosen, data, languages, mirror=download.mirror, note=note)
    read = read_tables(chosen, data, choose_languages(chosen, languages, data), skip_missing_images=skip_missing_images)
    opened = open_model(str(model or default_bundle()), model_options, max_new_tokens=chosen.max_new_tokens, note=note)
    folder = output / chosen.name / run_name(opened, chosen, instruction)
    kept = Journal(folder / ANSWERS, anew=force, count_refused=bool(model_options.count_refused))
    with ExitStack() as answering:
        answering.enter_context(closing(opened))
        # Held until the report is written: another process with other questions would mix its files with these.
        with kept as journal:
            with progress_bar() as progress:
                samples = evaluate(
                    chosen, read, opened, journal=journal, limit=limit, instruction=instruction, progress=progress
                )
            # A judge can take long, and needs no model.
            answering.close()
            settings = {
                "instruction": instruction,
                "limit": limit,
                "max_new_tokens": chosen.max_new_tokens,
                "model_fingerprint": opened.fingerprint,
            }
            if refused := journal.refused(sample.row for sample in samples):
                settings["refused"] = refused
                note(f"{refused} of the questions were refused or could not be asked; they count as wrong")
            scores = None
            if judge is not None:
                settings["judge"] = judge.settings()
                scores = _judged_scores(samples, judge, folder / "judgements.jsonl", force=force)
            report = build(chosen, read, samples, model=opened.name, settings=settings, scores=scores)
            if earlier := set_aside(folder, report):
                note(f"the report that stood there, of other questions, data or another judge, is now in {earlier}")
            text = write_report(folder, report, samples)
    note(f"kept in {folder}")
    return text if as_json else tables.markdown(report, by_category=by_category)


def _check_judge(benchmark: Benchmark, judge: Judge | None) -> None:
    if benchmark.composite == "judge" and judge is None:
        raise InputError(
            f"{benchmark.title}: a model has to judge the answers; name one with --judge URL and --judge-model NAME"
        )
    if benchmark.composite != "judge" and judge is not None:
        raise InputError(f"--judge: {benchmark.title} is scored without a judge; leave it out")


def _judged_scores(samples: list[Sample], judge: Judge, path: Path, *, force: bool) -> list[composite.Score]:
    with JudgementJournal(path, anew=force) as journal, progress_bar("judging") as progress:
        return composite.judge_scores(judge_answers(samples, judge, journal, progress=progress))


def read_tables(
    benchmark: Benchmark, folder: Path | None, languages: tuple[str, ...], *, skip_missing_images: bool = False
) -> list[Table]:
    """The tables of ``languages`` from ``folder``; nano's are made where no folder is given. Raises InputError."""
    if folder is not None:
        files = find_files(benchmark, folder, languages)
    elif benchmark.name == "nano":
        files = _nano_files(languages)
    else:
        raise InputError(
            f"{benchmark.title} is not shipped ({benchmark.licence}); give the folder with its TSV files with --data, "
            f"and --download to have them fetched there; it is from {benchmark.source}"
        )
    return [
        read_tsv(
            files[code],
            language=code,
            skip_missing_images=skip_missing_images or benchmark.only_pictures,
            form=benchmark.form,
            as_published=benchmark.source is not None,
            numbered=any(measure.unit == "circle" for measure in benchmark.measures),
        )
        for code in languages
    ]


def _nano_files(languages: tuple[str, ...]) -> dict[str, Path]:
    try:
        from parrot_train.nano.write import ensure_evaluation
    except ModuleNotFoundError as error:
        raise InputError(
            f"drawing nano's held-out pictures needs {error.name}; install parrot-edge[train], "
            "or give a folder with nano's TSV files with --data"
        ) from error
    files: dict[str, Path] = {}
    for folder, spoken in ((NANO_FOLDER, CODES), (FURTHER_NANO_FOLDER, FURTHER_CODES)):
        if not set(languages) & set(spoken):
            continue
        if not folder.exists():
            note(f"drawing nano's held-out pictures under {folder}")
        files |= ensure_evaluation(folder, languages=spoken)
    return files


def default_bundle() -> Path:
    """The bundle that ``parrot-run`` takes, said on stderr."""
    from parrot_runtime.bundles import find_bundle

    folder = find_bundle().folder
    note(f"measuring {folder}")
    return folder


def run_name(model: Model, benchmark: Benchmark, instruction: Instruction) -> str:
    """The folder of a run: the model's name and a hash of all that could change an answer but the question itself."""
    parts = (model.fingerprint, benchmark.name, instruction, benchmark.max_new_tokens)
    key = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model.name).strip('-.') or 'model'}-{key}"


def set_aside(folder: Path, report: Report) -> Path | None:
    """Move the report in ``folder`` into a folder of its own below it, unless it is of what ``report`` is of.

    Where it went, or None. One model, asked in one way, has one folder and one journal, but as many reports as there
    are choices of languages, limit, files and judge.
    """
    try:
        earlier = json.loads((folder / REPORT).read_bytes())
        mine, other = _chosen(to_data(report)), _chosen(earlier)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if mine == other:
        return None
    place = folder / f"report-{hashlib.sha256(other.encode()).hexdigest()[:8]}"
    place.mkdir(exist_ok=True)
    # The report goes last: where it is, the others are.
    for name in (SAMPLES, DOCUMENT, REPORT):
        if (folder / name).is_file():
            (folder / name).replace(place / name)
    return place


def _chosen(data: Mapping[str, Any]) -> str:
    settings = data["settings"]
    files = {code: (each["sha256"], each["without_image"]) for code, each in data["data"].items()}
    return json.dumps([files, settings["limit"], settings.get("judge")], sort_keys=True)


def write_report(folder: Path, report: Report, samples: list[Sample]) -> str:
    """Write ``report.json``, ``report.md`` and ``samples.jsonl`` into ``folder``; the text of the first."""
    text = json.dumps(to_data(report), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    lines = (json.dumps(sample_data(sample), ensure_ascii=False) + "\n" for sample in samples)
    write_file(folder / SAMPLES, "".join(lines).encode("utf-8", "backslashreplace"))
    document = f"{tables.markdown(report, by_category=True)}\n{tables.disagreements(report)}"
    write_file(folder / DOCUMENT, document.encode("utf-8", "backslashreplace"))
    write_file(folder / REPORT, text.encode())
    return text


@contextmanager
def progress_bar(label: str = "answering") -> Iterator[Progress]:
    """A bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=label, show_pos=True, file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show
