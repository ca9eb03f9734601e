"""A source split over languages at random: ``parrot-train data partition``.

The parts have no record in common and so are not parallel, as in the paper (Figure 3), where each language translates
its own part of ShareGPT4V. Records of the same picture stay in one part, so that no picture is in two languages either.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES
from parrot_runtime.publish import publish_directory
from parrot_runtime.strict import nearest
from parrot_train.data.cache import file_hash
from parrot_train.data.json_list import ListWriter, image_mover
from parrot_train.data.records import Record, good_records
from parrot_train.data.survey import digest

MANIFEST = "partition.json"


@dataclass(frozen=True)
class Part:
    """What became of one language: its file, how many records were asked for and how many there are."""

    language: str
    file: str
    asked: int
    records: int
    sha256: str


@dataclass(frozen=True)
class Partition:
    """The manifest beside the parts; ``left`` records of the source are in none."""

    source: str
    sha256: str
    seed: int
    records: int
    left: int
    parts: tuple[Part, ...]


def parse_counts(text: str) -> dict[str, int]:
    """``"zh=71000,pt=14000"`` → those numbers, in the project's order of languages. Raises InputError."""
    counts: dict[str, int] = {}
    for entry in filter(None, re.split(r"[,\s]+", text)):
        code, _, number = entry.partition("=")
        if code not in CODES:
            raise InputError(f"--languages {entry}: '{code}' is none of {', '.join(CODES)}{nearest(code, CODES)}")
        if not re.fullmatch(r"[1-9][0-9]{0,11}", number) or code in counts:
            raise InputError(f"--languages {entry}: expected one number of records for each, such as tr=17000")
        counts[code] = int(number)
    if not counts:
        raise InputError("--languages names none; expected numbers of records such as zh=71000,pt=14000")
    return {code: counts[code] for code in CODES if code in counts}


def partition(
    source: Path, counts: Mapping[str, int], output: Path, *, seed: int, images: Path | None, force: bool
) -> Partition:
    """Write ``<stem>-<code>.json`` for each language of ``counts``, and the manifest, into the folder ``output``.

    With ``images`` the paths of pictures stay as they are, relative to it; without, they are relative to each file.
    Raises InputError for a source that is unreadable or too small, where ``output`` exists without ``force``, and where
    it holds anything but an earlier partition.
    """
    if force:
        _check_replaceable(output)
    groups = _groups(source)
    asked = sum(counts.values())
    if asked > len(groups):
        raise InputError(f"{source}: {len(groups):,} records are fewer than the {asked:,} that --languages asks for")
    chosen = _assign(groups, counts, seed)
    short = {code: count - int((chosen == place).sum()) for place, (code, count) in enumerate(counts.items())}
    if any(short.values()):
        listed = ", ".join(f"{code} by {missing:,}" for code, missing in short.items() if missing)
        raise InputError(
            f"{source}: with the records of a picture kept together the numbers cannot be met ({listed}); ask for less"
        )
    with publish_directory(output, force=force) as folder:
        parts = _write(source, counts, chosen, folder, None if images else output)
        result = Partition(str(source), file_hash(source), seed, len(groups), int((chosen < 0).sum()), tuple(parts))
        (folder / MANIFEST).write_text(json.dumps(as_data(result), ensure_ascii=False, indent=1) + "\n", "utf-8")
    return result


def _check_replaceable(output: Path) -> None:
    """``--force`` replaces a partition, never a source, pictures or anything else beside it."""
    if not output.is_dir():
        return
    try:
        manifest = json.loads((output / MANIFEST).read_text("utf-8"))
        own = {MANIFEST, *(Path(part["file"]).name for part in manifest["parts"])}
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    foreign = sorted(path.name for path in output.iterdir() if path.name not in own)
    if foreign:
        raise InputError(
            f"{output}: holds {foreign[0]}, which is no part of a partition, so --force does not replace it; give "
            "another folder with -o"
        )


def as_data(result: Partition) -> dict[str, Any]:
    """The manifest as plain data."""
    return {**vars(result), "parts": [vars(part) for part in result.parts]}


def _groups(source: Path) -> np.ndarray:
    """int64 ``[records]``: the first record that each is tied to, by pictures in common or by saying the same."""
    parent: list[int] = []
    first: dict[int, int] = {}

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for _, record in good_records(source):
        row = len(parent)
        parent.append(row)
        for key in _ties(record):
            other, here = root(first.setdefault(key, row)), root(row)
            parent[max(other, here)] = min(other, here)
    return np.array([root(row) for row in range(len(parent))], np.int64)


def _ties(record: Record) -> Iterator[int]:
    if record.images:
        yield from (digest("image", str(Path(image))) for image in record.images)
    else:
        yield digest("text", *(turn.text for turn in record.turns))


def _assign(groups: np.ndarray, counts: Mapping[str, int], seed: int) -> np.ndarray:
    """int16 ``[records]``: the place of a record's language in ``counts``, or -1.

    Whole groups, in an order that ``seed`` decides, go to the first language that still has room for all of them.
    """
    heads, sizes = np.unique(groups, return_counts=True)
    order = sorted(range(len(heads)), key=lambda place: seeded(seed, int(heads[place])))
    room = list(counts.values())
    language = np.full(len(heads), -1, np.int16)
    for place in order:
        size = int(sizes[place])
        fits = next((number for number, left in enumerate(room) if left >= size), None)
        if fits is not None:
            language[place] = fits
            room[fits] -= size
    return language[np.searchsorted(heads, groups)]


def seeded(seed: int, *what: int | str) -> bytes:
    """Bytes that order things at random: the same for the same ``seed``, whatever the library's version."""
    return hashlib.blake2b("/".join(map(str, (seed, *what))).encode(), digest_size=8).digest()


def _write(
    source: Path, counts: Mapping[str, int], chosen: np.ndarray, folder: Path, target: Path | None
) -> Iterator[Part]:
    """The parts' files into ``folder``; picture paths are made relative to ``target`` where there is one."""
    names = [f"{source.stem}-{code}.json" for code in counts]
    move = image_mover(source.parent, target)
    with ExitStack() as stack:
        writers = [ListWriter(stack.enter_context((folder / name).open("wb"))) for name in names]
        for (item, _), place in zip(good_records(source), chosen, strict=True):
            if place >= 0:
                writers[place].add(move(item))
        for writer in writers:
            writer.end()
    for name, writer, (code, count) in zip(names, writers, counts.items(), strict=True):
        yield Part(code, name, count, writer.records, writer.sha256)
