"""``parrot-eval``: measure a model on a benchmark, and look at what was measured."""

from pathlib import Path

import click

from parrot_evaluation import show_cli
from parrot_evaluation.model_options import model_options
from parrot_evaluation.options import download_options, judge_options, results_option
from parrot_evaluation.routing_cli import routing
from parrot_runtime.command import DefaultGroup, verbose_option

_EPILOG = "Example: parrot-eval nano --model bundles/nano-fp16 --languages tr,ar --limit 200"


class _DefaultRun(DefaultGroup):
    default = "run"


@click.group(cls=_DefaultRun, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="parrot-edge")
@verbose_option
def main() -> None:
    """Measure a model on a benchmark: nano, MMMB, MMBench_dev, MME, MMStar, ScienceQA, RealWorldQA, SEED-Bench or
    LLaVA-Bench.

    \b
    parrot-eval nano --model bundles/nano-fp16
    parrot-eval MMMB --model bundles/mine --data LMUData
    """


@main.command(epilog=_EPILOG)
@click.argument("benchmark")
@model_options
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The folder with the benchmark's TSV files. [default for nano: made under runs/nano/evaluation]",
)
@click.option("--languages", metavar="CODES", help="Some of en,zh,pt,ar,tr,ru [all there is]; nano has es,de too.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="About N questions of each language.")
@results_option
@click.option("--by-category", is_flag=True, help="Also one table per measure, by category.")
@click.option(
    "--instruction",
    type=click.Choice(["own", "kit-group", "released"]),
    default="own",
    show_default=True,
    help="Ask for the letter in the question's language, or as VLMEvalKit's groups do: in English, but for Chinese; "
    "released adds the released Parrot's sentences to questions without options.",
)
@download_options
@judge_options
@click.option("--skip-missing-images", is_flag=True, help="Leave out rows without a picture, and say how many.")
@click.option("--force", is_flag=True, help="Ask every chosen question again.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@verbose_option
def run(as_json: bool, by_category: bool, **options) -> None:
    """Measure a model on BENCHMARK: nano, MMMB, MMBench_dev, MME, MMStar, ScienceQA, RealWorldQA, SEED-Bench or
    LLaVA-Bench.

    Prints accuracy per language with the number of questions and 95 % intervals. Answers are kept as they come: the
    same command picks up a run that was cut.
    """
    from parrot_evaluation.measure import run_benchmark

    click.echo(run_benchmark(as_json=as_json, by_category=by_category, **options), nl=False)


main.add_command(routing)
main.add_command(show_cli.tables)
main.add_command(show_cli.compare)
main.add_command(show_cli.plot)
main.add_command(show_cli.report)
