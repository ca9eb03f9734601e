"""Options of ``parrot-eval run`` that belong together, each group arriving as one argument."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parrot_runtime.errors import InputError

if TYPE_CHECKING:
    from parrot_evaluation.judge import Judge

_JUDGE_OPTIONS = (
    click.option("--judge", metavar="URL", help="OpenAI-compatible server that judges LLaVA-Bench, such as …/v1."),
    click.option("--judge-model", metavar="NAME", help="That server's name of the model."),
    click.option("--judge-key-env", metavar="NAME", help="Variable that holds the key; without it none is sent."),
    click.option(
        "--judge-both-orders", is_flag=True, help="Judge each pair of answers in both orders; tells the bias."
    ),
    click.option("--judge-prompt", metavar="FILE", type=click.Path(path_type=Path), help="Another prompt for it."),
    click.option("--judge-body", metavar="JSON", help='Merged into each request: {"temperature": null} leaves it out.'),
)
_DOWNLOAD_OPTIONS = (
    click.option("--download", is_flag=True, help="Fetch the files that --data lacks from where they are published."),
    click.option("--mirror", metavar="URL", help="Fetch them from URL/NAME.tsv instead."),
)


@dataclass(frozen=True)
class Download:
    """That files are to be fetched, from ``mirror`` where it is given."""

    mirror: str | None = None


def judge_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a judge, as ``judge``: a Judge, or None without them. Raises InputError for half of one."""

    @functools.wraps(function)
    def with_judge(**options: Any) -> Any:
        names = ("judge", "judge_model", "judge_key_env", "judge_both_orders", "judge_prompt", "judge_body")
        return function(judge=_judge(*(options.pop(name) for name in names)), **options)

    return _decorate(with_judge, _JUDGE_OPTIONS)


def _judge(
    url: str | None, model: str | None, key_env: str | None, both_orders: bool, prompt: Path | None, body: str | None
) -> "Judge | None":
    if url is None:
        if any((model, key_env, both_orders, prompt, body)):
            raise InputError("options of a judge, but no judge: give its address with --judge")
        return None
    if model is None:
        raise InputError(f"--judge {url}: give the name of its model with --judge-model")
    from parrot_evaluation.judge import OPTIONS, PROMPT, Judge, read_prompt
    from parrot_runtime.endpoint import Settings, read_fields, read_key

    # All that can be wrong is found before the first question is asked.
    Settings(url, options=OPTIONS)
    read_key(key_env, "--judge-key-env")
    text = PROMPT if prompt is None else read_prompt(prompt)
    return Judge(url, model, key_env, both_orders, text, read_fields(body, "--judge-body"))


def download_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--download`` and ``--mirror``, as ``download``: a Download, or None."""

    @functools.wraps(function)
    def with_download(**options: Any) -> Any:
        wanted, mirror = options.pop("download"), options.pop("mirror")
        if mirror is not None and not wanted:
            raise InputError(f"--mirror {mirror} is where --download fetches from; give --download too")
        return function(download=Download(mirror) if wanted else None, **options)

    return _decorate(with_download, _DOWNLOAD_OPTIONS)


def question_options(limit: int, each: str) -> Callable[..., Any]:
    """``--data``, ``--languages`` and ``--limit`` of a command that asks some of a benchmark's questions; ``limit`` is
    how many of each language it asks, ``each`` what its help adds to that."""
    chosen = (
        click.option("--data", type=click.Path(path_type=Path), help="As for parrot-eval BENCHMARK."),
        click.option("--languages", metavar="CODES", help="Some of the benchmark's [all]."),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            default=limit,
            show_default=True,
            metavar="N",
            help=f"About N questions of each language{each}.",
        ),
    )
    return lambda function: _decorate(function, chosen)


def results_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``-o``, the folder of all runs, as ``output``."""
    option = click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("results"),
        show_default=True,
        help="Where answers and tables are kept; a run that was cut goes on from there.",
    )
    return option(function)


def _decorate(function: Callable[..., Any], options: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function
