"""``python -m parrot_benchmarks.paper``: run the study, or write its report."""

import sys
from pathlib import Path
from typing import Any

import click

from parrot_benchmarks.paper.study import FIRST_SEEDS, SCALE, SEEDS
from parrot_runtime.command import DefaultGroup, verbose_option
from parrot_runtime.errors import InputError

_FOLDER = Path("results/paper")
_REPORT = Path("docs/nano-results.md")


class _DefaultRun(DefaultGroup):
    default = "run"


def _folder_option(function):
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        default=_FOLDER,
        show_default=True,
        help="Where results and work are kept; a study that was cut goes on from there.",
    )(function)


@click.group(cls=_DefaultRun, context_settings={"help_option_names": ["-h", "--help"]})
@verbose_option
def main() -> None:
    """The paper's claims in miniature, on nano: train every variant with several seeds, and compare.

    \b
    python -m parrot_benchmarks.paper --plan
    python -m parrot_benchmarks.paper --only a --seeds 1
    """


@main.command()
@_folder_option
@click.option("--only", multiple=True, metavar="CLAIM", help="One of a to h; repeatable. [default: all]")
@click.option(
    "--seeds", default=FIRST_SEEDS, show_default=True, type=click.IntRange(1, SEEDS), help="1 to this number."
)
@click.option("--scale", default=SCALE, show_default=True, help="The fraction of nano's data and steps.")
@click.option("--questions", default=410, show_default=True, type=click.IntRange(1), help="About so many per language.")
@click.option("--workers", type=click.IntRange(min=1), help="Jobs at a time, one thread each. [default: the cores]")
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting of all trainings."
)
@click.option(
    "--take",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A report's .json: results made elsewhere, which are kept here first and not made again.",
)
@click.option(
    "--report",
    "into",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report there at the end, and its figures beside it as .json.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done, and stop.")
@verbose_option
def run(
    output: Path,
    only: tuple[str, ...],
    seeds: int,
    scale: float,
    questions: int,
    workers: int | None,
    settings: tuple[str, ...],
    take: Path | None,
    into: Path | None,
    plan_only: bool,
) -> None:
    """Train, ask, keep.

    Example: python -m parrot_benchmarks.paper --only a --only b --scale 0.1
    """
    from parrot_benchmarks.paper import runner
    from parrot_benchmarks.paper.study import Study, chosen_variants, jobs
    from parrot_train.config_files import load_config
    from parrot_train.workers import core_count

    load_config("nano", settings)
    study, workers = Study(output, scale, questions, settings), workers or core_count()
    study.check()
    if take and plan_only:
        raise InputError("--take keeps results and --plan keeps nothing; give one of the two")
    if take:
        study.keep()
        click.echo(f"{take}: {study.take(take)} results taken", err=True)
    variants = chosen_variants(only)
    if into and not plan_only:
        study.check_report(into, ((variant.name, seed) for variant in variants for seed in range(1, seeds + 1)))
    waiting = jobs(study, variants, range(1, seeds + 1))
    lines = runner.plan(study, waiting, workers=workers)
    if plan_only:
        click.echo("\n".join(lines))
        return
    study.keep()
    click.echo("\n".join(line for line in lines if not line.startswith(" ")), err=True)
    try:
        runner.run(study, waiting, workers=workers, note=lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on", err=True)
        sys.exit(130)
    if into:
        click.echo(_write_report(study, into))


@main.command()
@_folder_option
@click.option("--into", type=click.Path(path_type=Path, dir_okay=False), default=_REPORT, show_default=True)
@verbose_option
def report(output: Path, into: Path) -> None:
    """Write the tables of all results that are there, and beside them their figures as JSON.

    A report there that has results which are not in the study's folder is left as it is.

    Example: python -m parrot_benchmarks.paper report --into tables.md
    """
    from parrot_benchmarks.paper.study import Study

    study = Study.read(output)
    if not any((output / "results").glob("*.json")):
        raise InputError(f"{output}: holds no results yet; run `python -m parrot_benchmarks.paper -o {output}` first")
    study.check_report(into)
    click.echo(_write_report(study, into))


def _write_report(study: Any, into: Path) -> Path:
    from parrot_benchmarks.paper.comparing import figures
    from parrot_benchmarks.paper.tables import document
    from parrot_runtime.publish import write_file

    write_file(into, document(study).encode())
    write_file(into.with_suffix(".json"), figures(study).encode())
    return into


if __name__ == "__main__":
    main(prog_name="python -m parrot_benchmarks.paper")
