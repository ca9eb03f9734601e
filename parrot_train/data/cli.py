"""``parrot-train data``: training data looked at, split, translated and mixed."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from parrot_runtime.command import ParrotGroup, verbose_option
from parrot_train.translation.cli import import_sheet, sheet, translate

_PATH = click.Path(path_type=Path)
_FILES = click.argument("files", nargs=-1, required=True, metavar="FILE...", type=_PATH)
_IMAGES = click.option("--images", metavar="DIR", type=_PATH, help="Folder of the pictures [that of each file].")
_SEED = click.option("--seed", default=0, show_default=True, help="Decides every draw.")
_FORCE = click.option("--force", is_flag=True, help="Replace what has the name.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("data", cls=ParrotGroup)
def data() -> None:
    """Check, count, split, translate and mix LLaVA JSON. Nothing is downloaded.

    \b
    parrot-train data check train.json
    parrot-train data translate part-tr.json --to tr --endpoint http://localhost:8000/v1 --model NAME -o tr.json
    """


def _show(as_json: bool, result: Callable[[], Any], lines: Callable[[], Iterable[str]]) -> None:
    if as_json:
        click.echo(json.dumps(result(), ensure_ascii=False))
        return
    for line in lines():
        click.echo(line)


@data.command()
@_FILES
@_IMAGES
@click.option("--tokenizer", metavar="FILE", type=_PATH, help="tokenizer.json or its folder: lengths in tokens too.")
@click.option(
    "--image-tokens", type=click.IntRange(min=1), default=577, show_default=True, help="Positions of a picture."
)
@click.option(
    "--max-length", type=click.IntRange(min=8), default=2048, show_default=True, help="Longest sample in tokens."
)
@click.option(
    "--max-pixels", type=click.IntRange(min=1), default=16_000_000, show_default=True, help="Largest picture."
)
@click.option("--report", metavar="FILE", type=_PATH, help="Write every error and warning as JSON.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes [one per core, 16 at most].")
@_FORCE
@_JSON
@verbose_option
def check(
    files: tuple[Path, ...],
    images: Path | None,
    tokenizer: Path | None,
    image_tokens: int,
    max_length: int,
    max_pixels: int,
    report: Path | None,
    workers: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Look at every record and every picture: errors, lengths, duplicates, languages. Exit code 2 on errors.

    Example: parrot-train data check train.json --tokenizer models/qwen --report report.json
    """
    from parrot_runtime.errors import InputError
    from parrot_runtime.publish import check_file
    from parrot_train.data import survey_report
    from parrot_train.data.survey import TokenCount, survey
    from parrot_train.workers import core_count

    count = None
    if tokenizer is not None:
        file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
        if not file.is_file():
            raise InputError(f"--tokenizer {tokenizer}: there is no {file}; give a tokenizer.json or its folder")
        count = TokenCount(file, image_tokens, max_length)
    if report is not None:  # said before hours of decoding
        check_file(report, force=force)
    workers = min(16, core_count()) if workers is None else workers
    found = survey(files, images=images, count=count, max_pixels=max_pixels, workers=workers)
    if report is not None:
        survey_report.write_report(report, found, force=force)
    _show(as_json, lambda: survey_report.as_data(found), lambda: survey_report.describe(found))
    survey_report.refuse_errors(found, report)


@data.command()
@_FILES
@click.option("--plot", metavar="FILE", type=_PATH, help="Draw the languages' shares, as .png, .svg or .pdf.")
@click.option("--font", metavar="FILE", type=_PATH, help="A font for names that those here cannot write.")
@_FORCE
@_JSON
@verbose_option
def stats(files: tuple[Path, ...], plot: Path | None, font: Path | None, force: bool, as_json: bool) -> None:
    """Count records by dataset and language, and draw the pie of Figure 9.

    Example: parrot-train data stats en.json zh.json tr.json --plot languages.png
    """
    from parrot_runtime.plotting import check_format
    from parrot_runtime.publish import check_file
    from parrot_train.data import stats as counting

    if plot is not None:
        check_format(plot)
        check_file(plot, force=force)
    found = counting.count(files)
    _show(as_json, lambda: counting.as_data(found), lambda: counting.describe(found))
    if plot is not None:
        from parrot_train.data.pie import save_pie

        slices = list(counting.slices(found))
        for name in save_pie(plot, slices, f"{found.records:,} records", font=font, force=force):
            click.echo(f"parrot-train: no font here can write the own name of {name}; give one with --font", err=True)


@data.command()
@click.argument("source", type=_PATH)
@click.option("--languages", required=True, metavar="CODE=N,...", help="Records of each, such as zh=71000,tr=17000.")
@click.option("-o", "--output", required=True, metavar="DIR", type=_PATH, help="Folder of the parts.")
@_IMAGES
@_SEED
@_FORCE
@_JSON
@verbose_option
def partition(
    source: Path, languages: str, output: Path, images: Path | None, seed: int, force: bool, as_json: bool
) -> None:
    """Split SOURCE over languages at random: no record in two parts, all records of a picture in one.

    Example: parrot-train data partition sharegpt4v.json --languages zh=71000,pt=14000,ar=12000 -o parts
    """
    from parrot_train.data import partition as splitting

    counts = splitting.parse_counts(languages)
    result = splitting.partition(source, counts, output, seed=seed, images=images, force=force)
    lines = [f"{output / part.file}: {part.records:,} records for {part.language}" for part in result.parts]
    lines.append(f"{result.left:,} of {result.records:,} records are left over")
    _show(as_json, lambda: splitting.as_data(result), lambda: lines)


@data.command()
@_FILES
@click.option("--weights", metavar="NAME=W,...", help="Of datasets (a file's name without suffix) or languages [1].")
@click.option("--temperature", default=1.0, show_default=True, metavar="T", help="Above 1 lifts small groups; or inf.")
@click.option(
    "--by",
    type=click.Choice(["dataset", "language", "dataset/language"]),
    default="dataset",
    show_default=True,
    help="What the groups are.",
)
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Records to write [as many as there are].")
@click.option("-o", "--output", required=True, metavar="FILE", type=_PATH, help="The mixed file.")
@_IMAGES
@_SEED
@_FORCE
@_JSON
@verbose_option
def mix(files: tuple[Path, ...], weights: str | None, as_json: bool, **options: Any) -> None:
    """Make one file of several, in which group g of n records has a share in proportion to weight · n^(1/T).

    Example: parrot-train data mix en.json zh.json tr.json --by language --temperature 2 --samples 50000 -o mixed.json
    """
    from parrot_train.data import mix as mixing

    mixture = mixing.mix(files, weights=mixing.parse_weights(weights), **options)
    _show(as_json, lambda: mixing.as_data(mixture), lambda: mixing.describe(mixture))


@data.command()
@_JSON
@verbose_option
def registry(as_json: bool) -> None:
    """List the datasets of the paper's Table 3: counts, files, licences, and where to get them yourself.

    Example: parrot-train data registry
    """
    from parrot_train.data import registry as known

    _show(as_json, known.as_data, known.describe)


for _command in (translate, sheet, import_sheet):
    data.add_command(_command)
