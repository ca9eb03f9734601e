"""``parrot-run -i``: a conversation about pictures, a line at a time."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

import click

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.image import shown
from parrot_runtime.prompt import check_question
from parrot_runtime.run import Session, Settings, read_pictures, say

PROMPT = "» "
HELP = """\
/image FILE...  look at other pictures; a new conversation
/reset          forget the conversation, keep the pictures
/stats          times and routing after each answer, or no longer
/help           this
/quit           end; so does Ctrl-D, and Ctrl-C while nothing is being answered"""


def converse(pictures: Sequence[str], questions: Sequence[str], settings: Settings) -> None:
    """Ask ``questions``, then what stands on stdin, all in one conversation about ``pictures``.

    What is wrong with a line is said on stderr, and the conversation goes on. Ctrl-C ends the answer under way.
    """
    images, names = read_pictures(pictures, settings.max_pixels)
    conversation = Conversation(Session(settings))
    conversation.look_at(images, names)
    for line in _all_lines(questions):
        try:
            if not conversation.take(line):
                return
        except ParrotError as error:
            say(str(error))


class Conversation:
    """The state of a conversation, and the commands that change it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stats = session.settings.stats
        self._pictures, self._names = [], []
        self._chat = None

    def look_at(self, images: Sequence, names: Sequence[str]) -> None:
        """Begin anew about these pictures. Raises ImageError; then nothing has changed."""
        self._pictures, self._names = self._session.pictures(images, names), list(names)
        self._reset()

    def take(self, line: str) -> bool:
        """A question or a command; false for the one that ends it all. Raises ParrotError."""
        command, _, rest = line.strip().partition(" ")
        if not command:
            return True
        if not command.startswith("/"):
            self._ask(line.strip())
        elif command == "/quit":
            return False
        elif command == "/image":
            self.look_at(*read_pictures(_paths(rest), self._session.settings.max_pixels))
        elif command == "/reset":
            self._reset()
        elif command == "/stats":
            self._stats = not self._stats
        elif command == "/help":
            click.echo(HELP, err=True)
        else:
            raise InputError(f"there is no command {shown(command)}; /help lists them")
        return True

    def _reset(self) -> None:
        self._chat = self._session.parrot.chat(self._pictures, reroute=self._session.settings.reroute)

    def _ask(self, question: str) -> None:
        try:
            self._session.ask(self._chat, check_question(question), self._names, stats=self._stats)
        except KeyboardInterrupt:
            say("stopped; the question is forgotten")


def _paths(text: str) -> list[str]:
    """One path with spaces in it, if it exists; else several, as a shell would read them. Raises InputError."""
    text = text.strip()
    if not text:
        raise InputError("/image wants a picture, such as /image photo.jpg")
    # Of os.path, which says no where pathlib raises: of a user who is not there, a name too long, a closed folder.
    if os.path.lexists(os.path.expanduser(text)):
        return [os.path.expanduser(text)]
    try:
        return [os.path.expanduser(path) for path in shlex.split(text)]
    except ValueError as error:
        raise InputError(f"/image {shown(text)}: {error}; put a name with spaces into quotes") from error


def _all_lines(questions: Sequence[str]) -> Iterator[str]:
    yield from questions
    if sys.stdin is None:
        return
    if hasattr(sys.stdin, "reconfigure"):
        # Six languages must come in whatever the locale says; a line that is not UTF-8 is refused, and it alone.
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    if not sys.stdin.isatty():
        for number, line in enumerate(sys.stdin):
            yield line.removeprefix("\ufeff") if number == 0 else line  # Windows begins a file with a mark
        return
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401, gives input() its history and its editing keys
    say("type a question, or /help")
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            click.echo()
            return
