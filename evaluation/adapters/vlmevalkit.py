"""A bundle as a model of VLMEvalKit (``BaseModel``, ``supported_VLM``).

    python -m parrot_evaluation.adapters.vlmevalkit --bundle bundles/mine run.py --data MMMB_tr --model parrot

or, in code of your own, ``register("parrot", bundle="bundles/mine")`` before the kit looks its models up. The kit is
imported when a model is registered or made, not before.
"""

import re
import runpy
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import click

from parrot_evaluation.tsv import file_codes
from parrot_runtime.choices import LETTERS, multiple_choice
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES

# The benchmarks whose questions the kit's own adapter of Parrot asks in the language of the file.
_CODES = "|".join(written for language in CODES for written in file_codes(language))
_OURS = re.compile(rf"(?:MMMB|MMBench_dev)_({_CODES})|MMMB|MTL_MMBench_DEV")


@cache
def model_class() -> type:
    """The kit's ``BaseModel`` with Parrot in it. Raises InputError where the kit is not installed."""
    try:
        from vlmeval.vlm.base import BaseModel
    except ImportError as error:
        raise InputError(
            f"VLMEvalKit cannot be imported here ({error}); install it as its own documentation says"
        ) from error

    class Parrot(BaseModel):
        """``bundle`` is a folder (None takes the one parrot-run takes); answers are greedy.

        ``own_prompt``: ask MMMB and multilingual MMBench as Parrot was trained to be asked, in the question's language.
        Every other benchmark is asked as the kit puts it.
        """

        INSTALL_REQ = False
        INTERLEAVE = True

        def __init__(
            self, bundle: str | None = None, *, max_new_tokens: int = 512, own_prompt: bool = True, **options: Any
        ) -> None:
            from parrot_runtime.parrot import Parrot as Runtime

            super().__init__()
            self._parrot = Runtime.load(bundle, **options)
            self._max_new_tokens, self._own_prompt = max_new_tokens, own_prompt

        def use_custom_prompt(self, dataset: str) -> bool:
            return self._own_prompt and dataset is not None and _OURS.fullmatch(dataset) is not None

        def build_prompt(self, line: Any, dataset: str | None = None) -> list[dict[str, str]]:
            paths = self.dump_image(line, dataset)
            paths = paths if isinstance(paths, list) else [paths]
            pictures = [{"type": "image", "value": path} for path in paths]
            return [*pictures, {"type": "text", "value": _question(line, dataset)}]

        def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
            """All pictures stand before all text, as the model was trained; texts are joined by line breaks."""
            pictures = [Path(each["value"]) for each in message if each["type"] == "image"]
            text = "\n".join(each["value"] for each in message if each["type"] == "text")
            if other := {each["type"] for each in message} - {"image", "text"}:
                raise InputError(f"{dataset}: a message has {', '.join(sorted(other))}; Parrot reads pictures and text")
            return self._parrot.ask(pictures, text, max_new_tokens=self._max_new_tokens).text

    return Parrot


def register(name: str = "parrot", **options: Any) -> None:
    """Make ``--model name`` of the kit a Parrot; ``options`` are those of the model."""
    made = partial(model_class(), **options)
    from vlmeval.config import supported_VLM

    supported_VLM[name] = made


def _question(line: Any, dataset: str) -> str:
    """As parrot-eval puts a row: hint, question, options and the sentence that wants a letter, in its language."""

    def field(name: str) -> str:
        value = line.get(name)
        return "" if value is None or value != value else str(value)  # NaN is an empty cell of pandas

    # Run as a group, rows say which of its benchmarks they are from.
    name = field("SUB_DATASET") or dataset
    known = _OURS.fullmatch(name)
    if known is None or known[1] is None:
        raise InputError(f"{name}: a row does not say which language it is in; name a benchmark of one language")
    language = next(language for language in CODES if known[1] in file_codes(language))
    # Options with a gap keep their letters: the answer is one of these.
    options = {letter: text for letter in LETTERS if (text := field(letter))}
    return multiple_choice(
        field("question"), tuple(options.values()), language, hint=field("hint"), letters="".join(options)
    )


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--bundle", type=click.Path(), help="The bundle. [default: the one parrot-run takes]")
@click.option("--name", default="parrot", show_default=True, help="What --model of the kit calls it.")
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(bundle: str | None, name: str, script: str, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT, VLMEvalKit's run.py, with ARGUMENTS, and a Parrot among the kit's models."""
    try:
        register(name, bundle=bundle)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
