"""Weight files: the graphs' external data, inside safetensors files.

An ONNX graph may keep a tensor's numbers in another file, at an offset. Here that file is a safetensors file, so any
tool can read it and graphs of both dialects can share it. A graph asks for tensors while it is authored (``place``);
once all have, ``seal`` fixes the header and with it every offset, and ``write`` streams the numbers: from the
checkpoint to the file in pieces of a few MiB, byte for byte where the stored type is the wanted one.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parrot_export.slabs import DTYPES, Slab, StoredTensor
from parrot_runtime.errors import InputError, ParrotError

_CODES = {str(dtype): code for code, dtype in DTYPES.items()} | {
    "int8": "I8",
    "uint8": "U8",  # two int4 numbers to a byte: safetensors has no type for them
    "float8_e4m3fn": "F8_E4M3",
    "int64": "I64",
}
_LARGEST_HALF = float(np.finfo(np.float16).max)
# The bits of infinity, and whole numbers as wide.
_INFINITIES = {"float32": (np.uint32, 0x7F800000), "float16": (np.uint16, 0x7C00), "bfloat16": (np.uint16, 0x7F80)}
_NOT_FINITE = "{} holds NaN or infinity; train again from the last good checkpoint"


@dataclass(frozen=True)
class Block:
    """One tensor of a weight file: where its numbers come from and what they become.

    ``dtype`` is a numpy name (``float16``); ``chunks`` yields flat arrays, in any type, that make up ``shape``.
    ``slab`` is where these very bytes stand already, one after the other, in a file of the checkpoint, if they do.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[np.ndarray]]
    slab: Slab | None = None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def copied(tensor: StoredTensor, dtype: str, *, name: str | None = None) -> Block:
    """``tensor`` as it stands, under its own name or ``name``."""
    only = tensor.slabs[0] if len(tensor.slabs) == 1 and str(tensor.dtype) == dtype else None
    return Block(name or tensor.name, dtype, tensor.shape, tensor.chunks, only if isinstance(only, Slab) else None)


def flat(tensor: StoredTensor) -> Block:
    """A small tensor as float32, always written: for a few of these no file of a checkpoint is worth its link."""
    return Block(tensor.name, "float32", tensor.shape, tensor.chunks)


def side_by_side(tensor: StoredTensor, dtype: str) -> Block:
    """``tensor`` ``[E, C, I]`` as ``[C, E·I]``, under its name with ``.columns``."""
    count, rows, columns = tensor.shape
    return Block(f"{tensor.name}.columns", dtype, (rows, count * columns), tensor.column_chunks)


def computed(name: str, array: np.ndarray) -> Block:
    """A small table that is calculated rather than copied."""
    return Block(name, str(array.dtype), array.shape, lambda: iter([array.reshape(-1)]))


@dataclass(frozen=True)
class Region:
    """What one initialiser reads: one block or several that stand side by side, of one type, as ``shape``.

    ``dtype`` is that of the blocks, or ``int4`` for numbers that stand there two to a byte.
    """

    file: "WeightFile | LinkedFile"
    first: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        numbers = math.prod(self.shape)
        return numbers // 2 if self.dtype == "int4" else numbers * np.dtype(self.dtype).itemsize

    @property
    def offset(self) -> int:
        """Bytes from the start of the file; known once the file is sealed."""
        return self.file.offset(self.first)


class WeightFile:
    """A safetensors file under construction; ``location`` is its path inside the bundle."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._blocks: dict[str, Block] = {}
        self._header: bytes | None = None
        self._offsets: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Bytes of tensors, without the header."""
        return sum(block.size for block in self._blocks.values())

    def place(self, blocks: Sequence[Block], shape: tuple[int, ...] | None = None, dtype: str | None = None) -> Region:
        """Put ``blocks`` into the file, one directly after the other, and give the region they make up.

        A block that is there already is not put twice, so two graphs can read one tensor. ``shape`` is what the
        initialiser says, with as many elements; without it, the shape of the only block. ``dtype`` likewise.
        Raises ValueError when the blocks differ from those of the same name, or cannot stand side by side.
        """
        region = Region(self, blocks[0].name, dtype or blocks[0].dtype, shape or blocks[0].shape)
        if region.size != sum(block.size for block in blocks):
            raise ValueError(f"{self.location}: {', '.join(b.name for b in blocks)} do not make up {shape}")
        if self.holds(blocks):
            return region
        names = [block.name for block in blocks]
        if any(name in self._blocks for name in names):
            raise ValueError(f"{self.location}: {', '.join(names)} stand there already, in another form")
        if self._header is not None:
            raise ValueError(f"{self.location} is sealed; {names[0]} comes too late")
        self._blocks |= {block.name: block for block in blocks}
        return region

    def holds(self, blocks: Sequence[Block]) -> bool:
        """Whether ``blocks`` stand here already, side by side and in this form."""
        names, order = [block.name for block in blocks], list(self._blocks)
        if names[0] not in self._blocks:
            return False
        start = order.index(names[0])
        return order[start : start + len(names)] == names and all(_same(self._blocks[b.name], b) for b in blocks)

    def seal(self) -> None:
        """Fix the header, and with it every offset."""
        entries, position = {}, 0
        for block in self._blocks.values():
            self._offsets[block.name] = position
            entries[block.name] = {
                "dtype": _CODES[block.dtype],
                "shape": list(block.shape),
                "data_offsets": [position, position := position + block.size],
            }
        text = json.dumps({"__metadata__": {"format": "pt"}} | entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # safetensors pads its headers so that the numbers start aligned
        self._header = len(text).to_bytes(8, "little") + text

    def offset(self, name: str) -> int:
        """Where the block ``name`` starts, in bytes from the start of the file."""
        if self._header is None:
            raise ValueError(f"{self.location} is not sealed yet; its offsets are not known")
        return len(self._header) + self._offsets[name]

    def write(self, folder: Path, progress: Callable[[int], None] = lambda _size: None) -> None:
        """Write the sealed file below ``folder``; ``progress`` is told the bytes of each piece.

        Raises ParrotError when a number does not fit its new type, or is NaN where it is converted.
        """
        if self._header is None:
            raise ValueError(f"{self.location} is not sealed yet")
        path = folder / self.location
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(self._header)
            for data in _made_ahead(self._pieces()):
                file.write(data.view(np.uint8).data)
                progress(data.nbytes)

    def _pieces(self) -> Iterator[np.ndarray]:
        """All numbers in their types, in the file's order."""
        for block in self._blocks.values():
            size = 0
            for chunk in block.chunks():
                data = _converted(chunk, block)
                size += data.nbytes
                yield data
            if size != block.size:
                raise ValueError(f"{block.name}: {size} bytes written, {block.size} announced")


class LinkedFile:
    """A safetensors file of the checkpoint that stands in the bundle by a hard link: two names for the same bytes."""

    def __init__(self, location: str, source: Path) -> None:
        self.location, self.source = location, source
        self.size = 0
        self._offsets: dict[str, int] = {}

    def place(self, block: Block, shape: tuple[int, ...] | None, dtype: str | None) -> Region:
        """The region of a block whose bytes stand here."""
        if block.name not in self._offsets:
            self.size += block.size
        self._offsets[block.name] = block.slab.start
        return Region(self, block.name, dtype or block.dtype, shape or block.shape)

    def offset(self, name: str) -> int:
        """Where the block ``name`` starts, in bytes from the start of the file."""
        return self._offsets[name]

    def write(self, folder: Path) -> None:
        """Make the link below ``folder``. Raises InputError where the two lie on different disks."""
        path = folder / self.location
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.source.resolve(), path)
        except OSError as error:
            raise InputError(
                f"{self.source}: cannot be linked into the bundle ({error.strerror}); --link wants both on one disk: "
                "name a folder there with -o, or leave --link out"
            ) from error


@dataclass
class Links:
    """The files of a checkpoint that a bundle links, by their paths; see ``LinkedFile``."""

    files: dict[Path, LinkedFile] = field(default_factory=dict)

    def place(self, block: Block, shape: tuple[int, ...] | None, dtype: str | None) -> Region:
        """The region of a block that stands in the checkpoint."""
        source = block.slab.file
        if source not in self.files:
            # Numbered: a vision tower in a folder of its own may have files of the same names.
            self.files[source] = LinkedFile(f"weights/linked/{len(self.files) + 1:03d}-{source.name}", source)
        return self.files[source].place(block, shape, dtype)


@dataclass(frozen=True)
class Shelf:
    """Where a graph's tensors go: into ``own``, unless one of the files ``earlier`` holds them in the wanted form, or
    ``links`` are wanted and the checkpoint itself does."""

    own: WeightFile
    earlier: tuple[WeightFile, ...] = ()
    links: Links | None = None

    def place(self, blocks: Sequence[Block], shape: tuple[int, ...] | None = None, dtype: str | None = None) -> Region:
        """See ``WeightFile.place``."""
        if len(blocks) == 1 and self.linked(blocks):
            return self.links.place(blocks[0], shape, dtype)
        holder = next((file for file in self.earlier if file.holds(blocks)), self.own)
        return holder.place(blocks, shape, dtype)

    def linked(self, blocks: Sequence[Block]) -> bool:
        """Whether ``blocks`` are to be read where they stand in the checkpoint."""
        return self.links is not None and all(block.slab is not None for block in blocks)


def require_room(folder: Path, size: int) -> None:
    """Raise ParrotError unless ``size`` bytes fit on the disk of ``folder``, which is hidden beside its final place."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ParrotError(
            f"{folder.parent}: {size / 2**20:,.0f} MiB of weights, but {free / 2**20:,.0f} MiB free; "
            "make room, or give another place with -o"
        )


def _made_ahead(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """``pieces``, each read and converted on another thread while the one before it is written."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece


def _same(one: Block, other: Block) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape)


def _all_finite(chunk: np.ndarray) -> bool:
    """Whether no float in ``chunk`` has all bits of its exponent set, as NaN and infinity have: as fast as memory is
    read."""
    if str(chunk.dtype) not in _INFINITIES or not chunk.size:
        return True
    bits, infinity = _INFINITIES[str(chunk.dtype)]
    magnitudes = np.ascontiguousarray(chunk).view(bits) & (np.iinfo(bits).max >> 1)
    return int(magnitudes.max()) < infinity


def _converted(chunk: np.ndarray, block: Block) -> np.ndarray:
    """``chunk`` in the block's type: itself where it has that type already."""
    if str(chunk.dtype) == block.dtype:
        if not _all_finite(chunk):
            raise InputError(_NOT_FINITE.format(block.name))
        return chunk
    with np.errstate(over="ignore", invalid="ignore"):
        data = chunk.astype(block.dtype)
    if not np.isfinite(data).all():
        if not np.isfinite(chunk).all():
            raise InputError(_NOT_FINITE.format(block.name))
        largest = float(np.abs(chunk).max())
        raise ParrotError(f"{block.name} holds {largest:g}, above fp16's {_LARGEST_HALF:g}; export with --fp32")
    return data
