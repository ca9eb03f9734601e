"""The options that say which model a command of ``parrot-eval`` asks, and how."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

_POSITIVE = click.FloatRange(min=0, min_open=True)

_OPTIONS = (
    click.option(
        "--model",
        "--bundle",
        "model",
        metavar="BUNDLE|CHECKPOINT|URL",
        help="A bundle, a checkpoint's folder, or the address of an OpenAI-compatible server (http://…/v1). "
        "[default: the bundle parrot-run takes]",
    ),
    click.option(
        "--slots",
        "--concurrency",
        "slots",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Questions answered together: slots of a bundle [4; 1 in int8], rows of a checkpoint's batch [4], "
        "requests under way to a server [8].",
    ),
    click.option("--dtype", type=click.Choice(["float32", "bf16"]), help="Of a checkpoint. [float32]"),
    click.option(
        "--device", type=click.Choice(["cpu", "cuda"]), help="Of a checkpoint. [cuda where torch has it, else cpu]"
    ),
    click.option(
        "--vision-tower",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Vision encoder of a released checkpoint, where it is not beside it.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        metavar="N",
        help="The largest picture that a bundle or a checkpoint reads. [16000000]",
    ),
    click.option("--model-name", metavar="NAME", help="The server's name of the model."),
    click.option("--api-key-env", metavar="VAR", help="Variable that holds the server's key; without it none is sent."),
    click.option("--timeout", type=_POSITIVE, metavar="S", help="For a server's whole answer. [120]"),
    click.option("--retries", type=click.IntRange(min=0), metavar="N", help="Where a server gives no answer. [8]"),
    click.option("--requests-per-minute", type=_POSITIVE, metavar="N", help="To a server, at most."),
    click.option("--body", metavar="JSON", help='Merged into each request: {"temperature": null} leaves it out.'),
    click.option(
        "--count-refused",
        is_flag=True,
        default=None,
        help="A question that a server refuses, or that cannot be asked (damaged picture, text too long), counts as "
        "wrong.",
    ),
    click.option(
        "--ray",
        metavar="ADDRESS",
        help="Ask on a Ray cluster, an actor per GPU or per --ray-cpus: auto, local, or its address. The model's "
        "folder is at the same path on every node.",
    ),
    click.option(
        "--ray-cpus", type=click.IntRange(min=1), metavar="N", help="CPUs of an actor; GPUs are then left alone. [2]"
    ),
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; ``command`` gets ``model`` as text or None, and ``model_options``, a ModelOptions."""

    @wraps(command)
    def gathered(**options: Any) -> Any:
        from parrot_evaluation.models import ModelOptions

        given = ModelOptions(**{field.name: options.pop(field.name) for field in fields(ModelOptions)})
        return command(model_options=given, **options)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
