"""A saved model's tensors one at a time: read from its files, hashed, and written into one, without a whole model."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open

from parrot_runtime.errors import InputError
from parrot_train.shards import AGAIN, INDEX_NAME, weight_files

_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
# Spellings of some releases of transformers, of which the model has no trace.
_OLD_SPELLINGS = ((".vision_tower.vision_model.", ".vision_tower."), (".language_model.model.", ".language_model."))


class Numbers(Protocol):
    """A tensor that is somewhere, and comes into memory when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""

    def read(self, first: int, count: int) -> torch.Tensor:
        """``count`` numbers from the ``first`` on, flat."""

    def load(self) -> torch.Tensor:
        """All of it."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a safetensors file, as float32, whatever it is stored in."""

    file: Path
    name: str
    shape: tuple[int, ...]

    dtype = torch.float32

    def rows(self, first: int, last: int) -> torch.Tensor:
        """The rows from ``first`` up to ``last`` of a tensor that has rows."""
        with safe_open(self.file, "pt") as opened:
            return opened.get_slice(self.name)[first:last].float()

    def read(self, first: int, count: int) -> torch.Tensor:
        """``count`` numbers from the ``first`` on, flat."""
        if not self.shape:
            return self.load().reshape(1)[first : first + count]
        row = max(1, math.prod(self.shape[1:]))
        start = first // row
        found = self.rows(start, -(-(first + count) // row)).reshape(-1)
        return found[first - start * row :][:count]

    def load(self) -> torch.Tensor:
        """All of it, in memory of its own."""
        with safe_open(self.file, "pt") as opened:
            return opened.get_tensor(self.name).float().clone()


def read_stored(folder: Path, known: Iterable[str]) -> dict[str, Stored]:
    """Every tensor of the model whose safetensors files are in ``folder``, by the model's own names ``known``.

    Raises InputError for files that are missing or cut, and for a tensor that the model does not have.
    """
    known, found = set(known), {}
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    found[_spelled(name, known, file)] = Stored(file, name, tuple(opened.get_slice(name).get_shape()))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file}: cannot be read ({' '.join(str(error).split())}); {AGAIN}") from error
    return found


def _spelled(name: str, known: set[str], file: Path) -> str:
    spelled = name
    for old, new in _OLD_SPELLINGS:
        if spelled not in known:
            spelled = spelled.replace(old, new, 1)
    if spelled not in known:
        raise InputError(f"{file}: {name} is none of the model's tensors; {AGAIN}")
    return spelled


def tensors_hash(tensors: Mapping[str, torch.Tensor | Numbers]) -> str:
    """SHA-256 over names, shapes and bytes of all ``tensors``, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        weight = tensor.detach() if isinstance(tensor, torch.Tensor) else tensor.load()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def write_tensors(
    tensors: Mapping[str, Numbers], folder: Path, *, shard_bytes: int | str, progress: Callable[[int], None]
) -> None:
    """Write ``tensors`` as transformers saves a model's: one safetensors file, or shards and their index.

    One tensor at a time is in memory. ``progress`` is called with the bytes of each that is written.
    """
    shapes = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in tensors.items()}
    plan = split_torch_state_dict_into_shards(shapes, max_shard_size=shard_bytes)
    for file, names in plan.filename_to_tensors.items():
        _write_file(folder / file, {name: tensors[name] for name in names}, progress)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_file(path: Path, tensors: Mapping[str, Numbers], progress: Callable[[int], None]) -> None:
    """The format of safetensors: eight bytes of the header's length, the header, the numbers one after the other.

    Wider types come first, then the order is that of the names, and the header is padded to eight bytes, all as
    safetensors itself does it.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name in order:
        tensor = tensors[name]
        size = math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + size],
        }
        place += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            numbers = tensors[name].load().contiguous().reshape(-1).view(torch.uint8).numpy()
            file.write(numbers)
            progress(numbers.nbytes)
