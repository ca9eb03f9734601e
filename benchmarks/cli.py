"""``parrot-bench``: what this machine can do, what a bundle costs, and how that compares and grows."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from parrot_benchmarks.subjects import PEERS, check
from parrot_benchmarks.workload import Cost, Workload, median, run
from parrot_runtime.command import ParrotGroup, verbose_option
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.plotting import check_format
from parrot_runtime.publish import check_output

_HEADER = ("load s", "vision s", "prefill s", "first token s", "total s", "ms per step", "memory MiB")
_Key = TypeVar("_Key")
_FIELDS = ("load", "vision", "prefill", "first", "total", "step_ms", "memory")


@click.group(cls=ParrotGroup, context_settings={"help_option_names": ["-h", "--help"]})
@verbose_option
def main() -> None:
    """Measure Parrot. What is compared takes turns in one run; figures of two runs are not comparable.

    \b
    parrot-bench machine
    parrot-bench compare bundles/half-int4 bundles/half-fp16 --peer transformers=runs/random/parrot-qwen2-0.5b
    """


def _workload_options(function):
    options = (
        click.option("--images", default=1, show_default=True, type=click.IntRange(min=0), help="Pictures."),
        click.option("--text", default=43, show_default=True, type=click.IntRange(min=1), help="Words beside them."),
        click.option("--tokens", default=64, show_default=True, type=click.IntRange(min=1), help="Of the answer."),
        click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Questions at once."),
        click.option("--threads", type=click.IntRange(min=1), help="[default: all cores]"),
        click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="How often."),
        click.option("--json", "as_json", is_flag=True, help="Every round, for a program."),
        verbose_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@main.command()
@click.option("--threads", type=click.IntRange(min=1), help="[default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="For a program.")
@verbose_option
def machine(threads: int | None, as_json: bool) -> None:
    """Measure reading memory, and products of the sizes models have; `parrot-run --stats` shows answers beside it.

    Example: parrot-bench machine --threads 2
    """
    from parrot_benchmarks.machine import measure
    from parrot_runtime.rates import keep_limits

    found = measure(threads or os.cpu_count() or 1)
    try:
        keep_limits(found)
    except OSError as error:
        raise ParrotError(f"the figures cannot be kept for parrot-run ({error}); check XDG_STATE_HOME") from error
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    click.echo(f"{found.threads} threads")
    click.echo(f"  read memory           {found.read:8,.1f} GB/s")
    click.echo(f"  int4, one row         {found.int4_row:8,.1f} GB/s of weights")
    click.echo(f"  float32, many rows    {found.fp32:8,.0f} GFLOP/s")
    click.echo(f"  int8, many rows       {found.int8:8,.0f} GFLOP/s")


@main.command("run")
@click.argument("bundle")
@_workload_options
def measure_one(bundle: str, rounds: int, as_json: bool, **workload: int) -> None:
    """Measure BUNDLE alone; medians, least and most.

    Example: parrot-bench run bundles/nano-fp16 --tokens 16
    """
    asked = Workload(**workload)
    _show(_in_turn({bundle: (bundle, asked)}, rounds), asked, as_json=as_json)


@main.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="KIND=PATH",
    help=f"Another one with a model of its own: {', '.join(PEERS)}.",
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it: a .png, .svg or .pdf.")
@_workload_options
def compare(
    bundles: tuple[str, ...], peers: tuple[str, ...], plot: Path | None, rounds: int, as_json: bool, **workload: int
) -> None:
    """Measure BUNDLEs and peers in turn; medians, least and most, and ratios to the first bundle.

    transformers takes a checkpoint, llama.cpp a GGUF file, onnxruntime-genai the folder of its model builder, openvino
    the folder that optimum-intel exported a vision-language model to; each must be installed beside Parrot. llama.cpp
    and onnxruntime-genai are measured on words alone: --images 0.

    \b
    Example: parrot-bench compare bundles/half-int4 --peer llama.cpp=half-q4_0.gguf --images 0 --text 620
    """
    subjects = [*bundles, *map(_peer, peers)]
    if len(set(subjects)) < len(subjects):
        raise InputError("a bundle or peer is named twice; name each once")
    if plot is not None:
        from parrot_benchmarks.plot import save_plot

        check_format(plot)
        check_output(plot.parent)
    asked = Workload(**workload)
    costs = _in_turn({subject: (subject, asked) for subject in subjects}, rounds)
    if plot is not None:
        named = dict(zip(_names(subjects), costs.values(), strict=True))
        save_plot(plot, named, len(bundles), f"median of {rounds}, least to most; {_described(asked)}")
    _show(costs, asked, as_json=as_json)


def _peer(text: str) -> str:
    kind, _, path = text.partition("=")
    if kind not in PEERS or not path:
        raise InputError(f"--peer is '{text}'; expected KIND=PATH, KIND being one of {', '.join(PEERS)}")
    return f"{kind}:{path}"


def _in_turn(runs: dict[_Key, tuple[str, Workload]], rounds: int) -> dict[_Key, list[Cost]]:
    """What each costs in each round. Every other round is backwards: what drifts with time hits all of them alike."""
    for subject, asked in runs.values():
        check(subject, asked)
    costs: dict[_Key, list[Cost]] = {key: [] for key in runs}
    for number in range(rounds):
        for key in runs if number % 2 == 0 else reversed(runs):
            costs[key].append(run(*runs[key]))
    return costs


def _show(costs: dict[str, list[Cost]], workload: Workload, *, as_json: bool) -> None:
    if as_json:
        record = {subject: [dataclasses.asdict(cost) for cost in each] for subject, each in costs.items()}
        click.echo(json.dumps({"workload": dataclasses.asdict(workload), "rounds": record}))
        return
    medians = {subject: median(each) for subject, each in costs.items()}
    names, first = _names(list(costs)), next(iter(medians.values()))
    rounds = len(next(iter(costs.values())))
    click.echo(f"median of {rounds}; {_described(workload)}\n")
    _table([_row(name, cost) for name, cost in zip(names, medians.values(), strict=True)])
    if rounds > 1:
        click.echo("\nleast and most\n")
        _table([[name, *_spread(each)] for name, each in zip(names, costs.values(), strict=True)])
    if len(costs) > 1:
        click.echo(f"\nas a multiple of {names[0]}\n")
        _table([[name, *_ratios(cost, first)] for name, cost in zip(names, medians.values(), strict=True)])


@main.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option(
    "--over", type=click.Choice(("text", "images", "batch", "tokens", "size")), help="[default: text; size for several]"
)
@click.option("--values", metavar="N,N,...", help="[default: 1,2,4,8 times the workload's]")
@_workload_options
def scale(
    bundles: tuple[str, ...], over: str | None, values: str | None, rounds: int, as_json: bool, **workload: int
) -> None:
    """Measure BUNDLE at several sizes of one thing, and fit how time and memory grow: as N to the power of what.

    Several bundles are compared by their own size, the MiB of their files.

    \b
    Example: parrot-bench scale bundles/nano-fp16 --over batch --values 1,2,4
    """
    base, over = Workload(**workload), over or ("size" if len(bundles) > 1 else "text")
    if (over == "size") != (len(bundles) > 1) or (over == "size" and values is not None):
        raise InputError("give one bundle and what to vary with --over, or several bundles, whose sizes are their own")
    if over == "size":
        runs = {_mebibytes(bundle): (bundle, base) for bundle in bundles}
    else:
        start = max(1, getattr(base, over))
        sizes = _sizes(values) if values is not None else [start * factor for factor in (1, 2, 4, 8)]
        runs = {size: (bundles[0], dataclasses.replace(base, **{over: size})) for size in sizes}
    if len(runs) < len(bundles):
        raise InputError("two of the bundles have the same size; give bundles of different models")
    costs = _in_turn(runs, rounds)
    medians = {size: median(each) for size, each in costs.items()}
    growth = {field: _growth(list(runs), [getattr(cost, field) for cost in medians.values()]) for field in _FIELDS}
    if as_json:
        record = {size: [dataclasses.asdict(cost) for cost in each] for size, each in costs.items()}
        click.echo(json.dumps({"over": over, "rounds": record, "growth": growth}))
        return
    what = "each bundle" if over == "size" else _name(bundles[0])
    click.echo(f"{what}, median of {rounds}; {_described(base)}, but for {over}\n")
    unit = " MiB" if over == "size" else ""
    rows = [_row(f"{over} {size:,}{unit}", cost) for size, cost in medians.items()]
    _table([*rows, ["grows as N to the", *(f"{growth[field]:.2f}" for field in _FIELDS)]])


def _mebibytes(bundle: str) -> int:
    """What the manifest lists, at least 1."""
    from parrot_runtime.manifest import load_manifest

    return max(1, round(sum(file.size for file in load_manifest(Path(bundle)).files.values()) / 2**20))


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(set(sizes)) < 2 or len(set(sizes)) < len(sizes) or min(sizes) < 1:
        raise InputError(f"--values is '{text}'; expected two or more different whole numbers, such as 1,2,4")
    return sizes


def _growth(sizes: list[int], values: list[float]) -> float:
    """The slope of log value over log size: 1 is in proportion, 0 is not at all."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def _described(workload: Workload) -> str:
    parts = [f"{workload.images} picture(s)", f"{workload.text} words", f"{workload.tokens} tokens"]
    return ", ".join([*parts, f"batch {workload.batch}", f"threads {workload.threads or 'as many as cores'}"])


def _names(subjects: list[str]) -> list[str]:
    """What to call each: the last part of its path, or all of it where two would be called the same."""
    short = [_name(subject) for subject in subjects]
    return short if len(set(short)) == len(short) else subjects


def _name(subject: str) -> str:
    kind, _, rest = subject.partition(":")
    return f"{kind} {Path(rest).name}" if kind in PEERS else Path(subject).name


def _row(name: str, cost: Cost) -> list[str]:
    return [name, *(_number(getattr(cost, field)) for field in _FIELDS)]


def _spread(costs: list[Cost]) -> list[str]:
    return [
        f"{_number(min(getattr(cost, field) for cost in costs))} to "
        f"{_number(max(getattr(cost, field) for cost in costs))}"
        for field in _FIELDS
    ]


def _ratios(cost: Cost, first: Cost) -> list[str]:
    pairs = ((getattr(cost, field), getattr(first, field)) for field in _FIELDS)
    return [f"{value / least:.2f}" if least else "-" for value, least in pairs]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _table(rows: list[list[str]]) -> None:
    """Markdown, aligned."""
    rows = [["", *_HEADER], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in (rows[0], rule, *rows[1:]):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        click.echo(f"| {' | '.join(cells)} |")
