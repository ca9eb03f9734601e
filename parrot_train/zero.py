"""Checkpoints of DeepSpeed's ZeRO stages 1 to 3, as the weights that every rank holds a part of.

    FOLDER/
      latest                                              the name of the folder below
      global_stepN/
        mp_rank_00_model_states.pt                        ZeRO 1 and 2: shapes and order of what is trained; the rest
        zero_pp_rank_R_mp_rank_00_model_states.pt         ZeRO 3: the same, and rank R's part of the rest
        [bf16_]zero_pp_rank_R_mp_rank_00_optim_states.pt  rank R's part of the trained weights, float32

ZeRO 1 and 2 lay all trained weights of a parameter group end to end and cut that in one piece per rank. ZeRO 3 cuts
every tensor in as many pieces as there are ranks, and a rank lays its pieces end to end. The layout is what DeepSpeed's
own ``zero_to_fp32.py`` reads; DeepSpeed itself is not needed here.

These files are pickles, which may hold any program, and DeepSpeed's script runs what they hold. Here they are read as
plain data: tensors, numbers and names; objects of DeepSpeed's own few classes become inert ones, and a file with any
other is refused. The numbers are mapped, not read: no more of them is in memory than is asked for.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from parrot_runtime.errors import InputError
from parrot_train.shards import AGAIN, INDEX_NAME, WEIGHTS_NAME, weight_files

if TYPE_CHECKING:
    import torch

LATEST_NAME = "latest"
_OPTIMIZER, _FLAT_2, _FLAT_3 = "optimizer_state_dict", "single_partition_of_fp32_groups", "fp32_flat_groups"
_RANK = re.compile(r"zero_pp_rank_(\d+)_mp_rank_(\d+)_")
# DeepSpeed's own classes among the states; none of what they hold is needed.
_INERT = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)


class _Inert:
    """Stands where an object of another's class stood, and does nothing."""

    def __new__(cls, *_arguments: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_arguments: Any) -> None:
        pass


@dataclass(frozen=True)
class Partitioned:
    """One tensor: the numbers of ``pieces``, flat and one after the other, as ``shape``."""

    shape: tuple[int, ...]
    pieces: tuple["torch.Tensor", ...]

    @property
    def dtype(self) -> "torch.dtype":
        """The type the numbers are stored in: float32 for what was trained."""
        return self.pieces[0].dtype

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    def read(self, first: int, count: int) -> "torch.Tensor":
        """``count`` numbers from the ``first`` on, flat."""
        import torch

        parts = []
        for piece in self.pieces:
            if count and first < len(piece):
                parts.append(piece[first : first + count])
                count -= len(parts[-1])
            first = max(0, first - len(piece))
        return torch.cat(parts)

    def load(self) -> "torch.Tensor":
        """The whole tensor, in memory of its own."""
        return self.read(0, self.size).reshape(self.shape)


def is_zero_checkpoint(folder: Path) -> bool:
    """Whether the weights in ``folder`` are DeepSpeed's alone.

    A Trainer saves a model's own files beside DeepSpeed's where it has them whole, and those come first. What older
    releases left under ZeRO 3, tensors without numbers, does not count.
    """
    if not (folder / LATEST_NAME).is_file():
        return False
    if not any((folder / name).exists() for name in (WEIGHTS_NAME, INDEX_NAME)):
        return True
    return any(0 in shape for file in weight_files(folder) for shape in _shapes(file))


def read_zero_checkpoint(folder: Path) -> dict[str, Partitioned]:
    """Every parameter of the checkpoint in ``folder`` by its name; buffers are left out, of which a Parrot stores none.

    Raises InputError for files that are missing, cut, of a parallelism beside ZeRO, or hold more than data.
    """
    latest = folder / LATEST_NAME
    tag = latest.read_text(encoding="utf-8", errors="replace").strip()
    states = folder / tag
    if tag in ("", ".", "..") or Path(tag).name != tag or not states.is_dir():
        raise InputError(f"{latest}: names '{tag}', which is no folder beside it; {AGAIN}")
    optimizers = _by_rank(states, "*_optim_states.pt")
    parts = [_load(path, folder) for path in optimizers]
    models = [_load(path, folder) for path in _by_rank(states, "*_model_states.pt")]
    try:
        flat = [part[_OPTIMIZER].get(_FLAT_3, part[_OPTIMIZER].get(_FLAT_2)) for part in parts]
        _check_ranks(states, models, parts[0][_OPTIMIZER]["partition_count"], len(parts))
        third = _FLAT_3 in parts[0][_OPTIMIZER]
        trained = _of_stage_3(flat, models[0]) if third else _of_stage_2(flat, models[0], parts[0][_OPTIMIZER])
        found = dict(trained) | dict(_frozen(models))
        found |= {name: found[other] for name, other in models[0]["shared_params"].items() if other in found}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{states}: not as DeepSpeed writes it ({type(error).__name__}: {error}); {AGAIN}") from error
    for name, tensor in found.items():
        if sum(map(len, tensor.pieces)) != tensor.size:
            raise InputError(f"{states}: {name} is cut short: {list(tensor.shape)} were to be there; {AGAIN}")
    return found


def _shapes(file: Path) -> Iterator[list[int]]:
    """The shapes of all tensors of a safetensors file; none for a file that whoever reads its tensors will refuse."""
    try:
        with open(file, "rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        yield from [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
        return


def _by_rank(states: Path, pattern: str) -> list[Path]:
    """The files of one kind in the order of their ranks."""
    found = {}
    for path in states.glob(pattern):
        match = _RANK.search(path.name)
        if match is None and not path.name.startswith("mp_rank_"):
            continue  # an expert's or a layer's: _check_ranks says what is not read
        found[int(match[1]) if match else 0, path.name] = path
    if not found:
        raise InputError(
            f"{states}: holds no {pattern}, where DeepSpeed keeps a rank's part of the weights; copy the whole folder"
        )
    return [found[key] for key in sorted(found)]


def _load(path: Path, folder: Path) -> dict[str, Any]:
    """One file, its tensors mapped."""
    import torch

    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _INERT]):
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        other = re.search(r"GLOBAL (\S+)", str(error))
        what = f"an object of {other[1]}" if other else "more than data"
        raise InputError(
            f"{path}: holds {what}, and a pickle's objects may run any program; if you trust it, write plain weights "
            f"with `python {folder}/zero_to_fp32.py {folder} {folder} --safe_serialization`"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason}); {AGAIN}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}; expected DeepSpeed's states; {AGAIN}")
    return data


def _check_ranks(states: Path, models: list[Mapping[str, Any]], count: int | list[int], found: int) -> None:
    ranks = max(count) if isinstance(count, list) else count
    if models[0].get("mp_world_size", 1) != 1:
        raise InputError(f"{states}: of {models[0]['mp_world_size']} model-parallel ranks; only ZeRO's parts are read")
    if found != ranks:
        raise InputError(
            f"{states}: trained by {ranks} ranks, but {found} *_optim_states.pt are there; copy those of every machine"
        )


def _of_stage_2(
    flat: list[list["torch.Tensor"]], model: Mapping[str, Any], optimizer: Mapping[str, Any]
) -> Iterator[tuple[str, Partitioned]]:
    """ZeRO 1 and 2: ``flat[rank][group]``; between tensors there may be padding, and at a group's end there is."""
    paddings = optimizer.get("param_alignment_paddings")
    for group, shapes in enumerate(model["param_shapes"]):
        pieces, position = [rank[group] for rank in flat], 0
        for number, (name, shape) in enumerate(shapes.items()):
            size = math.prod(shape)
            yield name, Partitioned(tuple(shape), tuple(_cut(pieces, position, size)))
            position += size + (paddings[group][number] if paddings else 0)
        # The end is padded to a multiple of twice the ranks, in two places; more than that are tensors not listed.
        spare, unit = sum(map(len, pieces)) - position, 2 * len(flat)
        if not 0 <= spare <= 2 * unit:
            raise ValueError(f"{spare} numbers of group {group} belong to no tensor")


def _of_stage_3(flat: list[list["torch.Tensor"]], model: Mapping[str, Any]) -> Iterator[tuple[str, Partitioned]]:
    """ZeRO 3: every rank has the same share of each tensor, the last one's padded; groups follow on each other."""
    ranks, position = len(flat), 0
    for name, shape in ((name, shape) for shapes in model["param_shapes"] for name, shape in shapes.items()):
        size = math.prod(shape)
        share = -(-size // ranks)
        pieces = [piece for rank in flat for piece in _cut(rank, position, share)]
        yield name, Partitioned(tuple(shape), tuple(_cut(pieces, 0, size)))
        position += share
    if (spare := sum(map(len, flat[0])) - position) != 0:
        raise ValueError(f"{spare} numbers of each rank belong to no tensor")


def _frozen(models: list[Mapping[str, Any]]) -> Iterator[tuple[str, Partitioned]]:
    """What is not trained: whole in ZeRO 1 and 2, a share in every rank's file in ZeRO 3."""
    for name, shape in (models[0].get("frozen_param_shapes") or {}).items():
        pieces = [model["frozen_param_fragments"][name].flatten() for model in models]
        yield name, Partitioned(tuple(shape), tuple(_cut(pieces, 0, math.prod(shape))))


def _cut(pieces: list["torch.Tensor"], first: int, count: int) -> Iterator["torch.Tensor"]:
    """``count`` numbers from the ``first`` on, as views of the flat ``pieces``; fewer where they end before."""
    for piece in pieces:
        part = piece[first : first + count] if count and first < len(piece) else piece[:0]
        if len(part):
            yield part.detach()
        count -= len(part)
        first = max(0, first - len(piece))
