"""What ``parrot-run`` does once its arguments are parsed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parrot_runtime.errors import InputError, TextError
from parrot_runtime.image import MAX_BYTES, read_image, shown
from parrot_runtime.prompt import check_question
from parrot_runtime.report import as_json, as_table

if TYPE_CHECKING:
    from PIL import Image

    from parrot_runtime.names import BackendName
    from parrot_runtime.sampling import Sampling

STDIN = "-"
# What people call pictures: formats that are read, and others, so that those are refused by name and not asked.
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".svg", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".ico", ".psd", ".pdf"),
)


def collect(
    arguments: Sequence[str],
    images: Sequence[str],
    questions: Sequence[str],
    question_file: str | None,
    *,
    text_only: bool,
) -> tuple[list[str], list[str]]:
    """All pictures and all questions of a command line. Raises InputError when one side is missing."""
    pictures, asked = sort_arguments(arguments)
    pictures = [*images, *pictures]
    if [*pictures, *questions, question_file].count(STDIN) > 1:
        raise InputError("stdin can be read once: as one picture, or as questions; name a file for the other")
    for question in questions:
        asked += read_questions(STDIN) if question == STDIN else [question]
    if question_file is not None:
        asked += read_questions(question_file)
    if not asked:
        raise InputError('no question was given; expected for example: parrot-run photo.jpg "What is there?"')
    if pictures and text_only:
        raise InputError(f"{shown(pictures[0])} was given together with --text-only; leave one of them out")
    if not pictures and not text_only:
        raise InputError("no picture was given; name one before the question, or say --text-only to ask without")
    return pictures, asked


def sort_arguments(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Pictures and questions, each in order. A picture exists, or is ``-``, or is named or spelt like a file."""
    pictures: list[str] = []
    questions: list[str] = []
    for argument in arguments:
        (pictures if _is_picture(argument) else questions).append(argument)
    return pictures, questions


def run(
    pictures: Sequence[str],
    questions: Sequence[str],
    *,
    bundle: str | None,
    backend: BackendName,
    trust_engines: bool,
    sampling: Sampling,
    max_new_tokens: int,
    max_pixels: int,
    threads: int | None,
    stats: bool,
    json: bool,
) -> None:
    """Ask every question about all pictures together; answers on stdout, everything else on stderr.

    Everything that can be wrong with the input is found before the bundle is loaded, but for a question's length.
    """
    for question in questions:
        check_question(question)
    start = time.perf_counter()
    names = ["stdin" if picture == STDIN else shown(picture) for picture in pictures]
    images = [_read(picture, name, max_pixels) for picture, name in zip(pictures, names, strict=True)]
    read_seconds = time.perf_counter() - start

    folder = bundle if bundle is not None else _find_bundle()
    from parrot_runtime.parrot import Parrot

    def note(line: str) -> None:
        click.echo(f"parrot-run: {line}", err=True)

    parrot = Parrot.load(folder, backend=backend, threads=threads, trust_engines=trust_engines, note=note)
    start = time.perf_counter()
    ready = [parrot.picture(image, max_pixels=max_pixels, name=name) for image, name in zip(images, names, strict=True)]
    read_seconds += time.perf_counter() - start

    for question in questions:
        if len(questions) > 1 and not json:
            click.echo(f"» {question}", err=True)
        stream = parrot.stream(ready, question, max_new_tokens=max_new_tokens, sampling=sampling)
        if not json:
            for piece in stream:
                click.echo(piece, nl=False)
            click.echo()
        answer = stream.answer
        # Reading the pictures is on the first question's bill.
        answer.stats.seconds["image"] += read_seconds
        read_seconds = 0.0
        if json:
            click.echo(as_json(question, answer, images=names, bundle=shown(folder)))
        if stats:
            click.echo(as_table(answer, images=names), err=True)


def read_questions(source: str) -> list[str]:
    """The lines of a UTF-8 file (``-``: of stdin) that are not blank. Raises TextError."""
    name = "stdin" if source == STDIN else shown(source)
    try:
        data = _stdin("questions").read() if source == STDIN else Path(source).read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{name}: the questions are not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{name}: the questions cannot be read ({reason}); check the path") from error
    questions = [line for line in text.splitlines() if line.strip()]
    if not questions:
        raise TextError(f"{name}: holds no question; expected one per line")
    return questions


def _is_picture(argument: str) -> bool:
    if argument == STDIN or os.path.lexists(argument) or Path(argument).suffix.lower() in PICTURE_SUFFIXES:
        return True
    return argument.startswith(("/", "./", "../", "~/", "http://", "https://")) and not any(map(str.isspace, argument))


def _read(picture: str, name: str, max_pixels: int) -> Image.Image:
    source = _stdin("a picture").read(MAX_BYTES + 1) if picture == STDIN else picture
    return read_image(source, max_pixels=max_pixels, name=name)


def _stdin(expected: str):
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(f"{expected} was expected on stdin, and stdin is a terminal; pipe it in, or name a file")
    return sys.stdin.buffer


def _find_bundle() -> Path:
    from parrot_runtime.bundles import find_bundle

    found = find_bundle()
    for reason in found.skipped:
        click.echo(f"parrot-run: passed over {reason}", err=True)
    click.echo(f"parrot-run: using {shown(found.folder)}, {found.reason}", err=True)
    return found.folder
