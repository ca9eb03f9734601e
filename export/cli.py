"""``parrot-export``: checkpoints to bundles, and a look at bundles that stand."""

import json
from pathlib import Path
from typing import Any

import click

from parrot_export.progress import progress_bar
from parrot_runtime.command import DefaultGroup, ParrotCommand, verbose_option
from parrot_runtime.flavours import FLAVOURS
from parrot_runtime.names import TARGETS, TENSORRT_DIALECTS

_FOLDER = click.Path(path_type=Path)
_vision_tower_option = click.option(
    "--vision-tower",
    metavar="FOLDER|NAME",
    type=_FOLDER,
    help="Vision encoder of a released checkpoint, or its hub name.",
)


class _OnePrecision(ParrotCommand):
    """An export of one precision: of two flags the last would decide without a word."""

    _FLAGS = ("--fp32", "--fp16", "--bf16", "--int8", "--int4", "--fp8", "--auto")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = sorted(set(args) & set(self._FLAGS))
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} are different precisions; give one of them", ctx)
        return super().parse_args(ctx, args)


class _DefaultExport(DefaultGroup):
    default = "export"


@click.group(cls=_DefaultExport, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="parrot-edge")
@verbose_option
def main() -> None:
    """Export a Parrot checkpoint to a bundle: verified ONNX graphs, their weights, and what describes them.

    \b
    parrot-export --fp16
    parrot-export CHECKPOINT -o bundles/mine --fp32
    parrot-export inspect bundles/nano-fp16
    parrot-export engines bundles/nano-fp16 --sm 89
    """


@main.command(cls=_OnePrecision)
@click.argument("checkpoint", required=False, type=_FOLDER)
@click.option("-o", "--output", metavar="BUNDLE", type=_FOLDER, help="Bundle folder [bundles/<name>-<precision>].")
@click.option("--fp32", "precision", flag_value="fp32", help="Weights in float32.")
@click.option("--fp16", "precision", flag_value="fp16", help="Weights in float16, arithmetic in float32 (the default).")
@click.option("--bf16", "precision", flag_value="bf16", help="Weights and products in bfloat16; TensorRT.")
@click.option("--int8", "precision", flag_value="int8", help="Weights and inputs of products in int8.")
@click.option("--int4", "precision", flag_value="int4", help="Weights of the LLM in int4; on the cpu the rest in int8.")
@click.option("--fp8", "precision", flag_value="fp8", help="Weights and inputs of products in fp8; TensorRT, SM 89 on.")
@click.option(
    "--auto", "precision", flag_value="mixed", help="4, 8 or 16 bits part by part: fewest bytes in the budget; cpu."
)
@click.option("--embedding-bits", type=click.Choice(["8", "16"]), help="Of the word embeddings [the precision's].")
@click.option("--lm-head-bits", type=click.Choice(["8", "16"]), help="Of the output layer [the precision's].")
@click.option("--target", type=click.Choice(TARGETS), help="Where it will run [cpu, and TensorRT where installed].")
@click.option("--dialect", type=click.Choice(TENSORRT_DIALECTS), help="TensorRT's graphs [modern; classic for 10.3].")
@click.option("--sm", metavar="N,N", help="GPUs to build engines for, such as 80,89,120 [the GPU here, or these].")
@click.option("--max-batch", type=int, metavar="N", help="Most slots, pictures or questions at once in engines [8].")
@click.option("--max-len", type=int, metavar="N", help="Longest sequence [the model's, 2048 at most].")
@_vision_tower_option
@click.option("--link", is_flag=True, help="Link weights that need no conversion instead of copying them; one disk.")
@click.option(
    "--calibration", metavar="FOLDER", type=_FOLDER, help="Scales from parrot-calibrate: --int8, --int4, --fp8."
)
@click.option("--max-drop", type=click.FloatRange(min=0), metavar="POINTS", help="Accuracy a language may lose [1].")
@click.option(
    "--max-kl", type=click.FloatRange(min=0), metavar="NATS", help="Mean divergence a language may have [0.1]."
)
@click.option("--gate-samples", type=click.IntRange(min=1), metavar="N", help="Per language, for these [480].")
@click.option(
    "--gate-data",
    multiple=True,
    type=_FOLDER,
    metavar="FILE",
    help="Their questions: LLaVA JSON or VLMEvalKit TSV; several times [nano's].",
)
@click.option("--search-samples", type=click.IntRange(min=1), metavar="N", help="Per language, of --auto's search [8].")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare every graph with torch.")
@click.option("--force", is_flag=True, help="Replace the bundle that has the name.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbose_option
def export(
    precision: str | None,
    sm: str | None,
    embedding_bits: str | None,
    lm_head_bits: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Export CHECKPOINT, by default the newest finished `parrot-train stage2`.

    Example: parrot-export runs/nano/stage2 -o bundles/mine --fp32
    """
    from parrot_export.bundle import export as run_export
    from parrot_export.engines.targets import parse_sms
    from parrot_export.inspection import describe_frontier, describe_units, describe_verification, read_frontier
    from parrot_export.request import ExportRequest

    sms = parse_sms(sm) if sm is not None else None
    embedding, head = (int(bits) if bits else None for bits in (embedding_bits, lm_head_bits))
    request = ExportRequest(
        precision=precision or "fp16", sms=sms, embedding_bits=embedding, lm_head_bits=head, **options
    )
    built: list[Any] = []
    folder, manifest = run_export(request, progress_bar, _note, built.append)
    size = sum(record.size for record in manifest.files.values())
    if as_json:
        data = {"bundle": str(folder), "size": size, "verification": manifest.verification} | read_frontier(folder)
        _print_json(data | ({"engines": [str(engines.folder) for engines in built]} if built else {}))
        return
    click.echo(f"{folder}: {manifest.name}, {manifest.precision}, {size / 2**20:.1f} MiB")
    lines = describe_units(manifest.units) + describe_verification(manifest.verification) + describe_frontier(folder)
    for line in (*lines, *(line for engines in built for line in engines.describe())):
        click.echo(f"  {line}")


@main.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@verbose_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE holds: model, graphs, operators, files, and what verified it.

    Example: parrot-export inspect bundles/nano-fp16
    """
    from parrot_export.inspection import describe
    from parrot_export.inspection import inspect as look

    found = look(bundle)
    if as_json:
        _print_json(found)
    else:
        click.echo(describe(found))


@main.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--checkpoint", metavar="FOLDER", type=_FOLDER, help="Compare the graphs with this model in torch, too.")
@_vision_tower_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbose_option
def verify(bundle: Path, checkpoint: Path | None, vision_tower: Path | None, as_json: bool) -> None:
    """Check every file's hash and every graph of BUNDLE, and run it on questions in six languages.

    Example: parrot-export verify bundles/nano-fp16 --checkpoint runs/nano/stage2
    """
    from parrot_export.inspection import describe_verification, verify_bundle

    result = verify_bundle(bundle, checkpoint, vision_tower, progress_bar)
    if as_json:
        _print_json({"bundle": str(bundle), "verification": result})
        return
    click.echo(f"{bundle}: whole and unaltered, its graphs are sound")
    for line in describe_verification(result):
        click.echo(f"  {line}")


@main.command()
@click.argument("bundle", type=_FOLDER)
@click.option("--sm", metavar="N,N", help="Compute capabilities, such as 80,89,120 [the GPU here; without one, these].")
@click.option("--flavour", type=click.Choice(FLAVOURS), help="Which TensorRT [what is installed].")
@click.option("--max-batch", type=int, metavar="N", help="Most slots, pictures or questions at once [8].")
@click.option("--max-len", type=int, metavar="N", help="Longest sequence [the bundle's].")
@click.option("--workspace", type=int, metavar="MIB", help="Most scratch memory of one kernel [what the GPU has].")
@click.option("--force", is_flag=True, help="Build again what is current.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, one line per GPU.")
@verbose_option
def engines(bundle: Path, sm: str | None, workspace: int | None, as_json: bool, **options: Any) -> None:
    """Build the TensorRT engines of BUNDLE, or rebuild those that are stale, for the GPU here or those named.

    Example: parrot-export engines bundles/nano-fp16 --sm 89,120
    """
    from parrot_export.engines.cache import EngineRequest, build_engines
    from parrot_export.engines.targets import parse_sms
    from parrot_runtime.engines import BuildOptions

    sms = parse_sms(sm) if sm is not None else None
    request = EngineRequest(bundle=bundle, sms=sms, options=BuildOptions(workspace), **options)
    for found in build_engines(request, progress_bar, _note):
        if as_json:
            _print_json(found.as_data())
        else:
            click.echo("\n".join(found.describe()))


def _note(line: str) -> None:
    click.echo(f"parrot-export: {line}", err=True)


def _print_json(data: dict[str, Any]) -> None:
    click.echo(json.dumps(data, ensure_ascii=False))
