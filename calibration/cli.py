"""``parrot-calibrate``: scales for an export that rounds, drawn in every language."""

import json
from pathlib import Path
from typing import Any

import click

from parrot_export.progress import progress_bar
from parrot_runtime.command import ParrotCommand, verbose_option

_PATH = click.Path(path_type=Path)
_EPILOG = "Example: parrot-calibrate runs/nano/stage2 -o scales/nano && parrot-export --int4 --calibration scales/nano"


@click.command(cls=ParrotCommand, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="parrot-edge")
@click.argument("checkpoint", required=False, type=_PATH)
@click.option("-o", "--output", type=_PATH, default=Path("scales"), show_default=True, help="Folder of the scales.")
@click.option(
    "--data", multiple=True, type=_PATH, help="LLaVA JSON or VLMEvalKit TSV; several times [nano's pictures]."
)
@click.option("--languages", metavar="CODES", help="Some of en,zh,pt,ar,tr,ru [all].")
@click.option("--per-language", type=int, default=32, show_default=True, metavar="N", help="Samples of each language.")
@click.option(
    "--ranges",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    default="mse",
    show_default=True,
    help="Where activations are clipped: int8 and fp8 of TensorRT.",
)
@click.option(
    "--int4",
    type=click.Choice(["rtn", "awq", "gptq", "awq+gptq"]),
    default="awq+gptq",
    show_default=True,
    help="How weights of 4 bits are found; rtn rounds them to nearest.",
)
@click.option(
    "--block", type=click.Choice(["32", "64", "128"]), default="128", show_default=True, help="Weights a scale."
)
@click.option(
    "--asymmetric", is_flag=True, help="A zero point for each block of 4 bits; the cpu's graphs alone take it."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draw of samples and rows."
)
@click.option("--threads", type=click.IntRange(min=0), default=0, metavar="N", help="Of onnxruntime [its own choice].")
@click.option("--vision-tower", metavar="FOLDER|NAME", type=_PATH, help="Vision encoder of a released checkpoint.")
@click.option("--force", is_flag=True, help="Replace the scales that have the name.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbose_option
def main(checkpoint: Path | None, as_json: bool, **options: Any) -> None:
    """Draw scales for CHECKPOINT, by default the newest finished `parrot-train stage2`.

    Every language has the same number of samples; each threshold, factor and code is chosen by the language that
    suffers most. A run that was cut goes on when the same command is given again.
    """
    from parrot_calibration.report import as_data, describe
    from parrot_calibration.request import request_of
    from parrot_calibration.run import calibrate

    record = calibrate(request_of(checkpoint, **options), progress_bar, _note)
    if as_json:
        click.echo(json.dumps(as_data(options["output"], record), ensure_ascii=False))
    else:
        click.echo("\n".join(describe(options["output"], record)))


def _note(line: str) -> None:
    click.echo(f"parrot-calibrate: {line}", err=True)
