"""What is worked out once per data file and kept beside it: tokens, and decoded images.

``<folder>/.parrot-cache/<file>-<key>/`` holds memory-mapped arrays; the key covers the file's bytes, the tokenizer and
the prompt, so a changed input is another cache and an old one is never wrong. Images are watched by size and time.
"""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import SYSTEM_PROMPT
from parrot_runtime.publish import write_file
from parrot_train.data.encode import build_tokens
from parrot_train.data.records import Problem
from parrot_train.data.strings import StoredStrings
from parrot_train.workers import map_chunks

FOLDER = ".parrot-cache"
_VERSION = 2
# Images that a process takes at a time.
_CHUNK = 256


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class TokenStore:
    """The tokenised conversations of one file.

    tokens ``int32[total]`` and answers ``bool[total]`` (True where the loss is taken) hold all samples end to end,
    sample i at ``offsets[i]:offsets[i + 1]``; its images are ``image_rows[image_offsets[i]:image_offsets[i + 1]]``,
    numbers into ``images``. ``languages`` index ``language_codes``; ``rows`` are record numbers in the file.
    """

    file: Path
    folder: Path
    sha256: str
    tokens: np.ndarray
    answers: np.ndarray
    offsets: np.ndarray
    image_rows: np.ndarray
    image_offsets: np.ndarray
    languages: np.ndarray
    rows: np.ndarray
    names: Sequence[str]
    images: Sequence[str]
    language_codes: list[str]
    problems: list[Problem]

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple:
        # A loading worker maps the files itself; pickled as they are, the arrays would be copied into each.
        return _open_tokens, (self.file, self.folder, self.sha256)


_ARRAYS = ("tokens", "answers", "offsets", "image_rows", "image_offsets", "languages", "rows")


def token_store(path: Path, tokenizer: Path, *, image_tokens: int, workers: int, fallback: Path) -> TokenStore:
    """Open the token cache of one LLaVA JSON file, building it first where it is missing.

    ``fallback`` takes the cache when the data folder cannot be written. Raises InputError for a file that is no such
    list; single bad records come back as ``problems``.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected LLaVA JSON")
    digest, tokens_as = file_hash(path), file_hash(tokenizer)
    key = hashlib.sha256(json.dumps([_VERSION, digest, tokens_as, image_tokens, SYSTEM_PROMPT]).encode()).hexdigest()[
        :16
    ]
    root = path.parent if _can_keep(path.parent) else fallback
    folder = root / FOLDER / f"{path.stem}-{key}"
    with _alone(folder):
        if not (folder / "meta.json").is_file():
            build_tokens(path, folder, (str(tokenizer), tokens_as, image_tokens), workers)
    return _open_tokens(path, folder, digest)


def _can_keep(root: Path) -> bool:
    """Whether caches can be written below ``root``: another user's may stand in a folder that all may write to."""
    return os.access(root / FOLDER if (root / FOLDER).exists() else root, os.W_OK | os.X_OK)


def _open_tokens(path: Path, folder: Path, digest: str) -> TokenStore:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    strings = {name: StoredStrings(folder, name) for name in ("names", "images")}
    problems = [Problem(str(path), *problem) for problem in meta.pop("problems")]
    return TokenStore(path, folder, digest, problems=problems, **arrays, **strings, **meta)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time build in the cache ``folder``; the next one finds the work done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class ImageStore:
    """The images of one file: their paths, what is wrong with some, and their pixels where they are cached.

    ``pixels`` is ``uint8[images, 3, size, size]``, padded and resized but not yet normalised; None means that the
    loading workers decode. ``bad`` maps a row to the reason. None is larger than ``max_pixels``. ``sizes`` is the
    SHA-256 of the files' sizes: copies on several machines share it, and hardly any other picture.
    """

    paths: Sequence[Path]
    bad: dict[int, str]
    pixels: np.ndarray | None
    max_pixels: int
    sizes: str


def image_store(
    folder: Path, paths: Sequence[Path], recipe: ImageRecipe, *, keep_pixels: bool, max_pixels: int, workers: int
) -> ImageStore:
    """Decode every image once: a check always, and a memory-mapped cache in ``folder`` with ``keep_pixels``.

    A second call with unchanged files (size and time of change) only compares those.
    """
    signature, sizes = _signature(paths, max_pixels)
    key = hashlib.sha256(json.dumps([_VERSION, asdict(recipe)]).encode()).hexdigest()[:12]
    note, array = folder / f"images-{key}.json", folder / f"pixels-{key}.npy"
    with _alone(folder):
        known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        if known.get("signature") != signature or (keep_pixels and not array.is_file()):
            bad = _decode_all(paths, (recipe, max_pixels), array if keep_pixels else None, workers)
            known = {"signature": signature, "bad": {str(row): reason for row, reason in bad.items()}}
            if not keep_pixels:
                array.unlink(missing_ok=True)  # of older image files
            write_file(note, json.dumps(known, ensure_ascii=False).encode())
    bad = {int(row): reason for row, reason in known["bad"].items()}
    pixels = np.load(array, mmap_mode="r") if keep_pixels else None
    return ImageStore(paths, bad, pixels, max_pixels, sizes)


def _signature(paths: Sequence[Path], max_pixels: int) -> tuple[str, str]:
    """What is another one once a file has changed, or the limit; and the SHA-256 of the sizes alone."""
    digest, sizes = hashlib.sha256(str(max_pixels).encode()), hashlib.sha256()
    for path in paths:
        size, changed = _stat(path)
        digest.update(str([size, changed]).encode())
        sizes.update(f"{size} ".encode())
    return digest.hexdigest(), sizes.hexdigest()


def _stat(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _decode_all(
    paths: Sequence[Path], how: tuple[ImageRecipe, int], array: Path | None, workers: int
) -> dict[int, str]:
    """Decode all images, by recipe and limit, into the .npy file ``array`` if given; return the unreadable ones."""
    bad: dict[int, str] = {}
    beside = array.with_suffix(f".{os.getpid()}.partial") if array else None
    shape = (len(paths), 3, how[0].size, how[0].size)
    if array:
        for left in array.parent.glob(f"{array.stem}.*.partial"):  # by one that was killed: this folder is locked
            left.unlink(missing_ok=True)
    try:
        pixels = _reserved(beside, shape) if beside and paths else None
        row = 0
        arguments = (*how, pixels is not None)
        for chunk in map_chunks(_decode_chunk, paths, arguments, workers=workers, size=_CHUNK, label="images"):
            for image in chunk:
                if isinstance(image, str):
                    bad[row] = image
                elif pixels is not None:
                    pixels[row] = image
                row += 1
        if beside and array:
            if pixels is None:
                np.save(array, np.zeros(shape, np.uint8))
            else:
                pixels.flush()
                os.replace(beside, array)
    finally:
        if beside:
            beside.unlink(missing_ok=True)
    return bad


def _reserved(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """An array of bytes in a new file all of whose blocks are there: a full disk would else kill the process (SIGBUS).

    Raises ParrotError where there is no room.
    """
    try:
        pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise ParrotError(
            f"{path.parent}: {math.prod(shape):,} bytes for the pictures' pixels cannot be had ({error.strerror}); "
            "make room, or give --set data.image_cache=none, which decodes while training"
        ) from error
    return pixels


def unreadable(paths: Sequence[Path], *, max_pixels: int, workers: int) -> dict[int, str]:
    """Decode every picture and keep none; the places in ``paths`` of those that cannot be, with the reason."""
    chunks = map_chunks(_reasons, paths, (max_pixels,), workers=workers, size=_CHUNK, label="images")
    reasons = enumerate(reason for chunk in chunks for reason in chunk)
    return {place: reason for place, reason in reasons if reason is not None}


def _reasons(paths: Sequence[Path], max_pixels: int) -> list[str | None]:
    return [_reason(path, max_pixels) for path in paths]


def _reason(path: Path, max_pixels: int) -> str | None:
    try:
        read_image(path, max_pixels=max_pixels)
    except InputError as error:
        return str(error)
    return None


def _decode_chunk(
    paths: Sequence[Path], recipe: ImageRecipe, max_pixels: int, keep: bool
) -> list[np.ndarray | str | None]:
    return [_decode(path, recipe, max_pixels, keep) for path in paths]


def _decode(path: Path, recipe: ImageRecipe, max_pixels: int, keep: bool) -> np.ndarray | str | None:
    try:
        image = read_image(path, max_pixels=max_pixels)
        return to_bytes(preprocess(image, recipe), recipe) if keep else None
    except InputError as error:
        return str(error)


def to_bytes(pixels: np.ndarray, recipe: ImageRecipe) -> np.ndarray:
    """The bytes ``uint8[3, size, size]`` that ``preprocess`` normalised to ``float32[3, size, size]``: exact, since it
    scales whole numbers."""
    mean, std = (np.array(value, np.float32).reshape(3, 1, 1) for value in (recipe.mean, recipe.std))
    return np.rint((pixels * std + mean) * 255.0).astype(np.uint8)
