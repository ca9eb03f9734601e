"""``parrot-train``: the two stages, more languages, their configuration, and the nano world they are shown on."""

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from parrot_runtime.command import ParrotGroup, verbose_option
from parrot_train.data.cli import data


@click.group(cls=ParrotGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--local_rank", hidden=True, expose_value=False, help="What the deepspeed launcher adds.")
@verbose_option
def main() -> None:
    """Train Parrot: stage 1 aligns images with the language model, stage 2 teaches six languages.

    \b
    parrot-train stage1
    parrot-train stage2
    parrot-train extend --languages es,de
    """
    # One library opens the tokenizer's thread pool, another forks: the tokenizers then warn at every start.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


main.add_command(data)


def _stage_options(function: Any) -> Any:
    options = (
        click.option(
            "--config", "config_name", default="nano", show_default=True, metavar="NAME|FILE", help="Settings."
        ),
        click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting."),
        click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder [runs/<config>/<stage>]."),
        click.option("--data", multiple=True, metavar="FILE", help="LLaVA JSON instead of the configured; repeatable."),
        click.option("--resume", is_flag=True, help="Go on from the last good checkpoint."),
        click.option("--force", is_flag=True, help="Replace the run that the folder holds."),
        click.option("--max-bad-fraction", type=float, metavar="F", help="Leave out up to this share of bad records."),
        click.option("--json", "as_json", is_flag=True, help="Print run.json of the finished run."),
        verbose_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@main.command()
@_stage_options
def stage1(**options: Any) -> None:
    """Stage 1, modality alignment: train the projector on captions.

    Example: parrot-train stage1 --set stage1.epochs=2 -o runs/longer/stage1
    """
    _run(1, **options)


@main.command()
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="Stage 1 run, or a stage 2 to go on from [runs/<config>/stage1].",
)
@_stage_options
def stage2(**options: Any) -> None:
    """Stage 2, multilingual instruction tuning: train projector, experts and language model.

    Example: parrot-train stage2 --data my.json --from runs/nano/stage1 -o runs/mine/stage2
    """
    _run(2, **options)


@main.command()
@click.option("--languages", metavar="CODES", help="ISO 639-1 codes of the languages to add, such as ja,ko,hi.")
@click.option("--experts", type=click.IntRange(min=1), metavar="N", help="Experts to add [one per language].")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="Stage 2 run, or an extended one [runs/<config>/stage2].",
)
@_stage_options
def extend(languages: str | None, experts: int | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Add languages to a trained model: new experts, copies of the nearest ones, learn; nothing else does.

    Without --data the nano world asks its questions in them, in Spanish and German (es,de).

    Example: parrot-train extend --languages es,de -o runs/nano/eight
    """
    from parrot_runtime.languages import split_codes

    if languages is not None:
        overrides += (f"extend.languages={json.dumps(split_codes(languages))}",)
    if experts is not None:
        overrides += (f"extend.experts={experts}",)
    _run("extend", overrides=overrides, **options)


def _run(
    stage: int | str,
    *,
    config_name: str,
    overrides: tuple[str, ...],
    output: Path | None,
    data: tuple[str, ...],
    resume: bool,
    force: bool,
    max_bad_fraction: float | None,
    as_json: bool,
    source: Path | None = None,
) -> None:
    from parrot_train.config import section_of
    from parrot_train.config_files import load_config

    if resume and force:
        raise click.UsageError("--resume goes on with the run, --force replaces it; give one of the two")
    if data:
        overrides += (f"data.{section_of(stage)}={json.dumps(data, ensure_ascii=False)}",)
    if max_bad_fraction is not None:
        overrides += (f"data.max_bad_fraction={max_bad_fraction}",)
    config = load_config(config_name, overrides)

    from parrot_train.stages import StageRequest, run_stage

    request = StageRequest(stage, config, output=output, source=source, resume=resume, force=force)
    with redirect_stdout(sys.stderr):  # DeepSpeed, where it is installed, has its log on stdout
        result = run_stage(request)
    if result is None:
        return  # a rank whose main process says it
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    name = "extension" if stage == "extend" else f"stage {stage}"
    click.echo(
        f"{request.run}: {name} finished, {result['steps']} steps in {result['seconds']:.0f} s, "
        f"loss {result['loss']:.3f}"
    )


@main.command("config")
@click.argument("name", default="nano")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
@verbose_option
def show_config(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print a whole configuration, every setting with its meaning.

    Example: parrot-train config nano --set stage2.epochs=2 > mine.yaml
    """
    from parrot_train.config_files import load_config, to_mapping, to_yaml

    config = load_config(name, overrides)
    click.echo(json.dumps(to_mapping(config), ensure_ascii=False) if as_json else to_yaml(config), nl=as_json)


@main.command()
@click.option("--config", "config_name", default="nano", show_default=True, metavar="NAME|FILE", help="Settings.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="How many, one rank on each.")
@click.option("--gpu", default="a100", show_default=True, metavar="NAME", help="Which: its memory and its peak.")
@click.option("--gpu-memory", type=click.FloatRange(0, min_open=True), metavar="GIB", help="Memory of each [--gpu's].")
@click.option("--gpu-flops", type=click.FloatRange(0, min_open=True), metavar="T", help="Peak TFLOP/s [--gpu's].")
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.4,
    show_default=True,
    help="Share of the peak that training reaches.",
)
@click.option("--stage", type=click.Choice(("1", "2", "both")), default="both", show_default=True, help="Which stage.")
@click.option("--data", multiple=True, metavar="FILE", help="LLaVA JSON whose lengths are measured; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; memory in bytes.")
@verbose_option
def plan(config_name: str, overrides: tuple[str, ...], stage: str, data: tuple[str, ...], **options: Any) -> None:
    """Say what training needs: memory under each ZeRO stage, steps, FLOPs, hours. Neither weights nor a GPU are used.

    Example: parrot-train plan --config parrot-qwen2-7b --gpus 16 --gpu a100
    """
    if data and stage == "both":
        raise click.UsageError("--data is measured for one stage; give --stage 1 or --stage 2 with it")
    from parrot_train.config_files import load_config
    from parrot_train.planning.command import run_plan

    stages = (1, 2) if stage == "both" else (int(stage),)
    click.echo(run_plan(load_config(config_name, overrides), stages=stages, data=data, **options))


@main.command()
@click.argument("architecture")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder [runs/random/<architecture>].")
@click.option("--dtype", type=click.Choice(("bf16", "fp16", "fp32")), default="bf16", show_default=True, help="Type.")
@click.option("--seed", default=0, show_default=True, help="Decides every weight.")
@click.option("--force", is_flag=True, help="Replace the checkpoint that the folder holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the folder and its bytes as JSON.")
@verbose_option
def random(architecture: str, output: Path | None, dtype: str, seed: int, force: bool, as_json: bool) -> None:
    """Write a checkpoint of random weights in the size of ARCHITECTURE, to export and to time without a download.

    Example: parrot-train random parrot-qwen2-0.5b -o runs/random/half
    """
    from parrot_train.architectures import named_architecture

    config, folder = named_architecture(architecture), output or Path("runs/random") / architecture

    from parrot_train.random_checkpoint import write_random_checkpoint

    with click.progressbar(length=1, label="Writing weights", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        size = write_random_checkpoint(config, folder, dtype=dtype, seed=seed, force=force, progress=progress)
    if as_json:
        click.echo(json.dumps({"checkpoint": str(folder), "bytes": size}))
        return
    click.echo(f"{folder}: {architecture}, random weights, {dtype}, {size / 2**20:,.0f} MiB")


@main.group(cls=ParrotGroup)
def nano() -> None:
    """The nano world: pictures drawn by code, and small backbones to look at them."""


@nano.command("data")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder [data.nano_folder of the configuration].")
@click.option("--config", "config_name", default="nano", show_default=True, metavar="NAME|FILE", help="Settings.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting.")
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
@verbose_option
def nano_data(output: Path | None, config_name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Draw the pictures and write their questions and answers.

    Example: parrot-train nano data -o data/nano
    """
    from parrot_train.config_files import load_config

    config = load_config(config_name, overrides)

    from parrot_train.data.files import nano_data as draw

    files = draw(config, output or Path(config.data.nano_folder))
    if as_json:
        click.echo(json.dumps({name: str(path) for name, path in files.items()}))
        return
    for name, path in files.items():
        click.echo(f"{name}: {path}")


@nano.command("backbones")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder [runs/nano/backbones].")
@click.option("--force", is_flag=True, help="Replace the backbones that the folder holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the folders as JSON.")
@verbose_option
def nano_backbones(output: Path | None, force: bool, as_json: bool) -> None:
    """Pretrain the small vision encoder and language model that the package ships, which takes hours.

    Example: parrot-train nano backbones -o runs/mine/backbones
    """
    from parrot_train.nano.backbones import DEFAULT_FOLDER, make_backbones

    folders = make_backbones(output or DEFAULT_FOLDER, force=force, report=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps({name: str(path) for name, path in folders.items()}))
        return
    for name, path in folders.items():
        click.echo(f"{name}: {path}")
