"""Builds the token cache of one LLaVA JSON file: records come as a stream, and ids go to the disk as they come.

What stays in memory is what is small of a record: its number, its name, the names of its pictures.
"""

import json
import shutil
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from parrot_runtime.errors import InputError
from parrot_runtime.prompt import SYSTEM_PROMPT, PromptEncoder
from parrot_runtime.publish import publish_directory
from parrot_runtime.tokenizer import load_tokenizer
from parrot_train.data.json_list import stream_json
from parrot_train.data.records import Problem, parse_records
from parrot_train.data.strings import save_strings
from parrot_train.workers import map_chunks

# Records that a process takes at a time.
CHUNK = 256


@lru_cache(maxsize=2)
def prompt_encoder(tokenizer: str, sha256: str) -> PromptEncoder:
    """The encoder of a tokenizer's file, read once in a process.

    ``sha256`` is the file's: a path alone may be another file by the second call, or relative to another folder.
    """
    return PromptEncoder(load_tokenizer(Path(tokenizer)))


@dataclass(frozen=True)
class Sample:
    """One record: its number, its name, its language, its pictures, ids ``int32[n]`` and answers ``bool[n]``."""

    row: int
    name: str
    language: str
    images: tuple[str, ...]
    ids: np.ndarray
    answers: np.ndarray


def build_tokens(path: Path, folder: Path, arguments: tuple[str, str, int], workers: int) -> None:
    """Write the cache of ``path`` as ``folder``; ``arguments`` are the tokenizer's file and SHA-256, and the number of
    image tokens. Raises InputError where ``path`` is no list of records."""
    chunks = map_chunks(
        _encode_chunk,
        enumerate(stream_json(path)),
        (str(path), *arguments),
        workers=workers,
        size=CHUNK,
        label=f"tokens of {path.name}",
    )
    with publish_directory(folder, force=True) as beside:
        _write(chunks, beside)


def _encode_chunk(
    raw: Sequence[tuple[int, Any]], file: str, tokenizer: str, sha256: str, image_tokens: int
) -> list[Sample | Problem]:
    """Per record what is kept of it, or why it cannot be used."""
    encoder = prompt_encoder(tokenizer, sha256)
    found: list[Sample | Problem] = []
    for row, item in raw:
        records, problems = parse_records([item], file=file, first=row)
        found += problems
        for record in records:
            system = SYSTEM_PROMPT if record.system is None else record.system
            try:
                prompt = encoder.encode(record.turns, image_tokens=image_tokens, system=system)
            except InputError as error:
                found.append(Problem(file, row, record.name, str(error)))
                continue
            ids = prompt.input_ids.astype(np.int32)
            found.append(Sample(row, record.name, record.language, tuple(record.images), ids, prompt.labels_mask))
    return found


@dataclass
class _Small:
    """What is kept of all samples until the end; pictures and languages are numbered as they come."""

    names: list[str] = field(default_factory=list)
    rows: array = field(default_factory=lambda: array("q"))
    lengths: array = field(default_factory=lambda: array("q"))
    images: dict[str, int] = field(default_factory=dict)
    image_rows: array = field(default_factory=lambda: array("q"))
    image_counts: array = field(default_factory=lambda: array("q"))
    codes: dict[str, int] = field(default_factory=dict)
    languages: array = field(default_factory=lambda: array("q"))

    def add(self, sample: Sample) -> None:
        self.names.append(sample.name)
        self.rows.append(sample.row)
        self.lengths.append(len(sample.ids))
        self.image_counts.append(len(sample.images))
        self.image_rows.extend(self.images.setdefault(image, len(self.images)) for image in sample.images)
        self.languages.append(self.codes.setdefault(sample.language, len(self.codes)))


def _write(chunks: Iterator[list[Sample | Problem]], folder: Path) -> None:
    small, problems = _Small(), []
    with (folder / "tokens.raw").open("w+b") as tokens, (folder / "answers.raw").open("w+b") as answers:
        for one in (each for chunk in chunks for each in chunk):
            if isinstance(one, Problem):
                problems.append([one.row, one.name, one.reason])
                continue
            small.add(one)
            tokens.write(one.ids.tobytes())
            answers.write(one.answers.tobytes())
        # As long as all samples together: how long is known only now.
        _to_npy(tokens, folder / "tokens.npy", np.dtype(np.int32))
        _to_npy(answers, folder / "answers.npy", np.dtype(np.bool_))
    for name in ("tokens", "answers"):
        (folder / f"{name}.raw").unlink()
    images, image_rows = _sorted(small.images, small.image_rows)
    codes, languages = _sorted(small.codes, small.languages)
    arrays = {
        "offsets": _offsets(small.lengths),
        "image_rows": image_rows,
        "image_offsets": _offsets(small.image_counts),
        "languages": languages.astype(np.int16),
        "rows": np.array(small.rows, np.int64),
    }
    for name, numbers in arrays.items():
        np.save(folder / f"{name}.npy", numbers)
    save_strings(folder, "names", small.names)
    save_strings(folder, "images", images)
    meta = {"language_codes": codes, "problems": problems}
    (folder / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")


def _to_npy(raw: BinaryIO, path: Path, dtype: np.dtype) -> None:
    """``raw`` as a one-dimensional array's file."""
    size = raw.tell()
    raw.seek(0)
    with path.open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (size // dtype.itemsize,)}
        np.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(raw, file, 1 << 20)


def _sorted(numbered: dict[str, int], numbers: array) -> tuple[list[str], np.ndarray]:
    """The names in order, and ``numbers`` as places in that order."""
    names = sorted(numbered)
    places = np.zeros(len(names), np.int64)
    places[[numbered[name] for name in names]] = np.arange(len(names))
    return names, places[np.array(numbers, np.int64)]


def _offsets(lengths: array) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)
