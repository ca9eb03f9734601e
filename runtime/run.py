"""What ``parrot-run`` does once its arguments are parsed."""

from __future__ import annotations

import csv
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parrot_runtime.choices import check_options
from parrot_runtime.errors import InputError, TextError
from parrot_runtime.image import MAX_BYTES, read_image, shown
from parrot_runtime.prompt import check_question
from parrot_runtime.report import as_json, as_table, choice_as_json, choice_as_table, explanation_as_table

if TYPE_CHECKING:
    from PIL import Image

    from parrot_runtime.cache import Picture
    from parrot_runtime.chat import Chat
    from parrot_runtime.explain import Explanation
    from parrot_runtime.names import BackendName, Reroute
    from parrot_runtime.rates import Rate
    from parrot_runtime.sampling import Sampling
    from parrot_runtime.stats import Stats

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
    interactive: bool = False,
) -> tuple[list[str], list[str]]:
    """All pictures and all questions of a command line. Raises InputError when one side is missing.

    A conversation may begin with neither, but stdin is what it reads its questions from.
    """
    pictures, asked = sort_arguments(arguments)
    pictures = [*images, *pictures]
    if [*pictures, *questions, question_file].count(STDIN) > 1:
        raise InputError("stdin can be read once: as one picture, or as questions; name a file for the other")
    if interactive and STDIN in (*pictures, *questions, question_file):
        raise InputError("-i reads its questions from stdin, so - cannot stand for anything else; name a file")
    for question in questions:
        asked += read_questions(STDIN) if question == STDIN else [question]
    if question_file is not None:
        asked += read_questions(question_file)
    if not asked and not interactive:
        raise InputError('no question was given; expected for example: parrot-run photo.jpg "What is there?"')
    if pictures and text_only:
        raise InputError(f"{shown(pictures[0])} was given together with --text-only; leave one of them out")
    if not pictures and not text_only and not interactive:
        raise InputError("no picture was given; name one before the question, or say --text-only to ask without")
    return pictures, asked


def sort_arguments(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Pictures and questions, each in order. A picture exists, or is ``-``, or is named or spelt like a file."""
    pictures: list[str] = []
    questions: list[str] = []
    for argument in arguments:
        (pictures if _is_picture(argument) else questions).append(argument)
    return pictures, questions


def split_choices(text: str | None, *, interactive: bool) -> tuple[str, ...]:
    """The options of ``--choices``, as a line of CSV. Raises InputError."""
    if text is None:
        return ()
    if interactive:
        raise InputError("--choices scores questions one by one, and -i is a conversation; leave one of them out")
    try:
        options = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error as error:
        raise InputError(f"--choices cannot be read ({error}); expected one line, such as A,B,C,D") from error
    return tuple(check_options([option.strip() for option in options]))


def check_given(given: Collection[str], *, choices: bool, interactive: bool) -> None:
    """Raise InputError for an option that was ``given`` where it does nothing."""
    if "reroute" in given and not interactive:
        raise InputError("--reroute is about the later questions of a conversation; give it together with -i")
    for name in _GENERATION:
        if choices and name in given:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is about making an answer, and --choices makes none; leave one of them out")


def check_explain(explain: bool, *, choices: bool, interactive: bool, text_only: bool, temperature: float) -> bool:
    """``explain`` itself. Raises InputError where there is nothing it explains."""
    for given, option, why in (
        (interactive, "-i", "it explains questions one by one"),
        (choices, "--choices", "it explains an answer that is generated"),
        (text_only, "--text-only", "only pictures are routed"),
        (temperature > 0, "--temperature", "it compares answers, and these would differ by chance"),
    ):
        if explain and given:
            raise InputError(f"--explain was given together with {option}, but {why}; leave one of them out")
    return explain


# Options that are about making an answer.
_GENERATION = ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed", "lookup")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a command line wants its answers made and shown."""

    bundle: str | None
    backend: BackendName
    trust_engines: bool
    threads: int | None
    sampling: Sampling
    max_new_tokens: int
    max_pixels: int
    reroute: Reroute
    lookup: bool
    options: tuple[str, ...]
    explain: bool
    stats: bool
    json: bool


class Session:
    """A loaded bundle and how its answers are shown: on stdout, everything else on stderr."""

    def __init__(self, settings: Settings) -> None:
        from parrot_runtime.parrot import Parrot

        self.settings = settings
        self._folder = settings.bundle if settings.bundle is not None else _find_bundle(settings.backend)
        self.parrot = Parrot.load(
            self._folder,
            backend=settings.backend,
            threads=settings.threads,
            trust_engines=settings.trust_engines,
            lookup=settings.lookup,
            note=say,
        )

    def pictures(self, images: Sequence[Image.Image], names: Sequence[str]) -> list[Picture]:
        """Pictures made ready. Raises ImageError."""
        limit = self.settings.max_pixels
        return [
            self.parrot.picture(image, max_pixels=limit, name=name) for image, name in zip(images, names, strict=True)
        ]

    def ask(self, chat: Chat, question: str, names: Sequence[str], *, stats: bool, read_seconds: float = 0.0) -> None:
        """Ask, and show the answer as it comes; ``read_seconds`` were spent on the pictures before."""
        settings = self.settings
        stream = chat.stream(question, max_new_tokens=settings.max_new_tokens, sampling=settings.sampling)
        if not settings.json:
            begun = False
            try:
                for piece in stream:
                    click.echo(piece, nl=False)
                    begun = True
                begun = True  # an answer without a word is a line too, and an error before the first word is none
            finally:
                stream.close()
                if begun:
                    click.echo()
        answer = stream.answer
        answer.stats.seconds["image"] += read_seconds
        reached = self._reached(answer.stats) if settings.json or stats else {}
        explained = self._explain(chat, question) if settings.explain else None
        if settings.json:
            folder = shown(self._folder)
            click.echo(as_json(question, answer, images=names, bundle=folder, reached=reached, explained=explained))
        if stats:
            click.echo(as_table(answer, images=names, reached=reached), err=True)
        if explained is not None and not settings.json:
            click.echo(explanation_as_table(explained, answer.text, images=names), err=True)

    def _explain(self, chat: Chat, question: str) -> Explanation:
        settings = self.settings
        return self.parrot.explain(
            chat.pictures, question, max_new_tokens=settings.max_new_tokens, sampling=settings.sampling
        )

    def choose(self, pictures: Sequence[Picture], question: str, names: Sequence[str], read_seconds: float) -> None:
        """Score the options, and show the likeliest."""
        choice = self.parrot.choose(list(pictures), question, self.settings.options)
        choice.stats.seconds["image"] += read_seconds
        reached = self._reached(choice.stats)
        if self.settings.json:
            click.echo(choice_as_json(question, choice, images=names, bundle=shown(self._folder), reached=reached))
        else:
            click.echo(choice.text)
        if self.settings.stats:
            click.echo(choice_as_table(choice, images=names, reached=reached), err=True)

    def _reached(self, stats: Stats) -> dict[str, Rate]:
        """What onnxruntime reached on this CPU; nothing is known of other engines."""
        if self.parrot.backend != "onnxruntime":
            return {}
        from parrot_runtime.rates import kept_limits, rates

        return rates(stats, self.parrot.manifest, kept_limits())


def run(pictures: Sequence[str], questions: Sequence[str], settings: Settings) -> None:
    """Ask every question about all pictures together.

    Everything that can be wrong with the input is found before the bundle is loaded, but for a question's length.
    """
    for question in questions:
        check_question(question)
    start = time.perf_counter()
    images, names = read_pictures(pictures, settings.max_pixels)
    read_seconds = time.perf_counter() - start
    session = Session(settings)
    start = time.perf_counter()
    ready = session.pictures(images, names)
    # Reading the pictures is on the first question's bill.
    read_seconds += time.perf_counter() - start
    for question in questions:
        if len(questions) > 1 and not settings.json:
            click.echo(f"» {question}", err=True)
        if settings.options:
            session.choose(ready, question, names, read_seconds)
        else:
            session.ask(session.parrot.chat(ready), question, names, stats=settings.stats, read_seconds=read_seconds)
        read_seconds = 0.0


def say(line: str) -> None:
    """One line on stderr."""
    click.echo(f"parrot-run: {line}", err=True)


def read_pictures(pictures: Sequence[str], max_pixels: int) -> tuple[list[Image.Image], list[str]]:
    """The pictures, and what to call them. Raises ImageError."""
    names = ["stdin" if picture == STDIN else shown(picture) for picture in pictures]
    return [_read(picture, name, max_pixels) for picture, name in zip(pictures, names, strict=True)], names


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
    # Not str.splitlines: to that a form feed and five other characters inside a question end a line too.
    questions = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
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


def _find_bundle(backend: BackendName) -> Path:
    from parrot_runtime.bundles import find_bundle

    found = find_bundle(backend=backend)
    for reason in found.skipped:
        say(f"passed over {reason}")
    say(f"using {shown(found.folder)}, {found.reason}")
    return found.folder
