"""Read LLaVA JSON: a list of ``{"image": path or list, "conversations": [{"from", "value"}], "language": code}``.

``<image>`` is written literally in a human turn, once per image; here it becomes ``Turn.images``, and the text without
it is plain text from then on. Nothing is repaired and nothing is dropped: whatever does not fit is a ``Problem``, and
the caller decides with all of them in hand.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError
from parrot_runtime.prompt import IMAGE_PLACEHOLDER, Turn
from parrot_train.data.json_list import stream_json

UNDETERMINED = "und"
"""ISO 639-2's code for a record that names no language."""


@dataclass(frozen=True)
class Record:
    """One conversation. ``images`` in the order of their ``<image>`` marks; ``system`` None means the usual prompt."""

    row: int
    name: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    language: str
    system: str | None = None


@dataclass(frozen=True)
class Problem:
    """Why record number ``row`` of ``file`` (named ``name`` where it has an id) cannot be used."""

    file: str
    row: int
    name: str
    reason: str

    def __str__(self) -> str:
        name = f" (id {self.name})" if self.name else ""
        return f"{self.file}[{self.row}]{name}: {self.reason}"


class _Malformed(ValueError):
    """A record that breaks the format; the message becomes the Problem's reason."""


def read_json(path: Path) -> list[Any]:
    """The raw records of one file. Raises InputError when it is missing, is not JSON or is not a list with records."""
    return list(stream_json(path))


def parse_records(raw: Iterable[Any], *, file: str, first: int = 0) -> tuple[list[Record], list[Problem]]:
    """Split raw records, of which the first is number ``first`` of ``file``, into those that follow the format and the
    problems of the others, in file order."""
    records, problems = [], []
    for row, item in enumerate(raw, first):
        name = _name(item)
        try:
            records.append(_parse(item, row, name))
        except _Malformed as error:
            problems.append(Problem(file, row, name, str(error)))
    return records, problems


def good_records(path: Path) -> Iterator[tuple[dict[str, Any], Record]]:
    """Every record of ``path`` as it stands there and as it is read, one at a time.

    Raises InputError at the first that breaks the format.
    """
    for row, item in enumerate(stream_json(path)):
        records, problems = parse_records([item], file=str(path), first=row)
        if problems:
            raise InputError(f"{problems[0]}; `parrot-train data check` lists whatever else is wrong with the file")
        yield item, records[0]


def _name(item: Any) -> str:
    value = item.get("id") if isinstance(item, Mapping) else None
    return str(value)[:80].encode("utf-8", "backslashreplace").decode() if isinstance(value, str | int) else ""


def _parse(item: Any, row: int, name: str) -> Record:
    if not isinstance(item, Mapping):
        raise _Malformed(f"expected an object, got {type(item).__name__}")
    language = item.get("language", UNDETERMINED)
    if not isinstance(language, str) or not language or _has_lone_surrogates(language):
        raise _Malformed(f"'language' should be a code such as 'en', got {language!r}")
    images = _images(item)
    messages = item.get("conversations")
    if not isinstance(messages, list) or not messages:
        raise _Malformed("'conversations' should be a list of turns")
    pairs = [_message(message, place) for place, message in enumerate(messages)]
    system = None
    if pairs[0][0] == "system":
        system, pairs = pairs[0][1], pairs[1:]
    turns = tuple(_turn(role, text, place) for place, (role, text) in enumerate(pairs))
    if not turns or turns[-1].role != "assistant":
        raise _Malformed("the conversation does not end with an answer ('from': 'gpt')")
    marks = sum(turn.images for turn in turns)
    if marks != len(images):
        raise _Malformed(
            f"{marks} {IMAGE_PLACEHOLDER} marks stand in the human turns, but {len(images)} images are named"
        )
    return Record(row, name, turns, images, language, system)


def _images(item: Mapping) -> tuple[str, ...]:
    value = item.get("image")
    if value is None:
        return ()
    images = value if isinstance(value, list) else [value]
    if not all(isinstance(image, str) and image and "\0" not in image for image in images):
        raise _Malformed(f"'image' should be a path or a list of paths, got {str(value)[:80]!r}")
    if any(map(_has_lone_surrogates, images)):
        raise _Malformed(f"'image' holds a lone surrogate, which is no character: {str(value)[:80]!r}")
    return tuple(images)


def _message(message: Any, place: int) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise _Malformed(f"turn {place} should be an object with 'from' and 'value'")
    role, text = message.get("from"), message.get("value")
    if role not in ("human", "gpt") and not (role == "system" and place == 0):
        raise _Malformed(f"turn {place} is from {role!r}; expected 'human' or 'gpt' (or 'system' as the first)")
    if not isinstance(text, str):
        raise _Malformed(f"turn {place} has no text in 'value'")
    if _has_lone_surrogates(text):
        raise _Malformed(f"turn {place} holds a lone surrogate, which is no character")
    return role, text


def _has_lone_surrogates(text: str) -> bool:
    return not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text)


def _turn(role: str, text: str, place: int) -> Turn:
    expected = "human" if place % 2 == 0 else "gpt"
    if role != expected:
        raise _Malformed(f"turn {place} is from {role!r} where '{expected}' is due; the two alternate, 'human' first")
    if role == "gpt":
        if not text.strip():
            raise _Malformed(f"turn {place} is an empty answer")
        return Turn("assistant", text)
    images = text.count(IMAGE_PLACEHOLDER)
    # Wherever the mark was written, images stand first in their turn: the prompt template places them.
    text = text.replace(IMAGE_PLACEHOLDER, "").strip() if images else text
    if not text.strip() and not images:
        raise _Malformed(f"turn {place} is an empty question")
    return Turn("user", text, images)
