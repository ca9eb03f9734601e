"""LoRA and QLoRA in stage 2: what a checkpoint on the way keeps of it, and the whole model that it stands for.

    checkpoints/checkpoint-N/
      learned.safetensors   what learns: the adapters, the projector, the mixture; float32
      lora.json             the run that the rest is of, the hash of its weights, and how the adapters are scaled
      config.json …         and what every checkpoint has

The whole model is the run that stage 2 started from, in its own float32 weights, with what was learned in its place and
W + s·B·A where there is an adapter. It is computed in float64 and rounded once, a few rows at a time, for a finished
run, for whoever loads a checkpoint on the way, and for its export alike. That holds for NF4 too: what was trained
beside weights of four bits is added to the ones these were made of.
"""

import importlib.util
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from parrot_runtime.errors import InputError
from parrot_train.config import StageConfig
from parrot_train.shards import AGAIN, LORA_NAME, read_json
from parrot_train.stored import Numbers, Stored, read_stored, tensors_hash, write_tensors

if TYPE_CHECKING:
    from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration

LEARNED_FILE = "learned.safetensors"
_A, _B = ".lora_A.weight", ".lora_B.weight"
_ROWS_AT_ONCE = 1 << 24
"""Numbers of a weight that are merged at once: 128 MiB in float64."""
_HEAD, _WORDS = "lm_head.weight", "model.language_model.embed_tokens.weight"


def check_lora(stage: StageConfig, *, launched: bool) -> None:
    """Raise InputError where ``stage`` asks for adapters that this process cannot train."""
    lora = getattr(stage, "lora", None)
    if lora is None or not lora.rank:
        return
    if launched:
        raise InputError(
            f"stage2.lora.rank is {lora.rank}, and adapters are trained by one process; start parrot-train without a "
            "launcher, or --set stage2.lora.rank=0 to train the whole language model on these ranks"
        )
    needed = {"peft": True, "bitsandbytes": lora.quantize == "nf4"}
    missing = [name for name, used in needed.items() if used and importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"stage2.lora needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed; "
            "pip install 'parrot-edge[lora]'"
        )


def adapted(model: "ParrotForConditionalGeneration", stage: StageConfig, base: Path, sha256: str) -> "Learned | None":
    """Give ``model``, read from ``base``, the adapters that ``stage`` asks for; None where it asks for none."""
    lora = getattr(stage, "lora", None)
    if lora is None or not lora.rank:
        return None
    from parrot_train.model.adapters import add_adapters

    add_adapters(model, lora, seed=stage.seed, products=torch.bfloat16 if stage.precision == "bf16" else torch.float32)
    return Learned(base, sha256, lora.scale)


@dataclass(frozen=True)
class Learned:
    """What is to be kept of a model with adapters: ``base`` is the run it started from, ``sha256`` its weights'."""

    base: Path
    sha256: str
    scale: float

    def save(self, model: "ParrotForConditionalGeneration", folder: Path) -> None:
        """Write what learns into ``folder``, and of what it is a part."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(learned_tensors(model), folder / LEARNED_FILE, metadata={"format": "pt"})
        note = {"base": str(self.base.resolve()), "sha256": self.sha256, "scale": self.scale}
        (folder / LORA_NAME).write_text(json.dumps(note, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        _write_config(model, folder)

    def restore(self, model: "ParrotForConditionalGeneration", folder: Path) -> None:
        """Put what ``folder`` holds into ``model``. Raises InputError unless that is just what learns in it."""
        stored, mine = _read_learned(folder), learned_tensors(model)
        different = sorted(
            name for name in stored.keys() | mine.keys() if _shape(stored.get(name)) != _shape(mine.get(name))
        )
        if different:
            raise InputError(f"{folder}: {different[0]} is not as this model has it; start anew with --force")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(stored[name])

    def publish(self, model: "ParrotForConditionalGeneration", folder: Path, progress: Callable[[int], None]) -> None:
        """Write the whole model into ``folder``, as one that was trained whole. Raises InputError for another base."""
        from transformers import PreTrainedModel

        merged = merge(model.config, self.base, self.sha256, learned_tensors(model), self.scale, str(self.base))
        folder.mkdir(parents=True, exist_ok=True)
        _write_config(model, folder)
        write_tensors(merged, folder, shard_bytes=_shard_size(PreTrainedModel), progress=progress)


def _shape(tensor: torch.Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _shard_size(kind: type) -> int | str:
    """What transformers cuts a model's files at."""
    return inspect.signature(kind.save_pretrained).parameters["max_shard_size"].default


def learned_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What learns in ``model``, by the names of a checkpoint; the tensors are the model's own."""
    from parrot_train.model.adapters import plain_name

    return {
        plain_name(name): parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def _write_config(model: "ParrotForConditionalGeneration", folder: Path) -> None:
    """As transformers writes it for the whole model in float32."""
    model.config.dtype = torch.float32
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


@dataclass(frozen=True)
class Merged:
    """W + scale·B·A as float32: ``base`` W ``[out, in]``, ``down`` A ``[r, in]``, ``up`` B ``[out, r]``."""

    base: Stored
    down: torch.Tensor
    up: torch.Tensor
    scale: float

    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """[out, in]."""
        return self.base.shape

    def rows(self, first: int, last: int) -> torch.Tensor:
        """The rows from ``first`` up to ``last``."""
        up, down = (part.to("cpu", torch.float64) for part in (self.up[first:last], self.down))
        # Summed in float64, so that the rounded result does not depend on how the rows are cut.
        return torch.addmm(self.base.rows(first, last).double(), up, down, alpha=self.scale).float()

    def read(self, first: int, count: int) -> torch.Tensor:
        """``count`` numbers from the ``first`` on, flat."""
        row = self.shape[1]
        start = first // row
        return self.rows(start, -(-(first + count) // row)).reshape(-1)[first - start * row :][:count]

    def load(self) -> torch.Tensor:
        """The whole weight."""
        step = max(1, _ROWS_AT_ONCE // self.shape[1])
        return torch.cat([self.rows(row, min(row + step, self.shape[0])) for row in range(0, self.shape[0], step)])


@dataclass(frozen=True)
class Held:
    """A tensor that is in memory."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return self.tensor.dtype

    def read(self, first: int, count: int) -> torch.Tensor:
        """``count`` numbers from the ``first`` on, flat."""
        return self.load().reshape(-1)[first : first + count]

    def load(self) -> torch.Tensor:
        """All of it."""
        return self.tensor.cpu()


def read_lora_checkpoint(folder: Path) -> dict[str, Numbers]:
    """Every tensor of the whole model that the checkpoint in ``folder`` stands for, merged as it is read.

    Raises InputError for files that are missing or cut, and where the run that it started from is not there any more or
    has other weights.
    """
    from parrot_train.model import ParrotConfig

    note = read_json(folder / LORA_NAME)
    try:
        base, sha256, scale = Path(note["base"]), str(note["sha256"]), float(note["scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / LORA_NAME}: has no sound base, sha256 and scale; {AGAIN}") from error
    return merge(ParrotConfig.from_pretrained(folder), base, sha256, _read_learned(folder), scale, str(folder))


def _read_learned(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / LEARNED_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder / LEARNED_FILE}: cannot be read ({' '.join(str(error).split())}); {AGAIN}"
        ) from error


def merge(
    config: "ParrotConfig", base: Path, sha256: str, learned: Mapping[str, torch.Tensor], scale: float, where: str
) -> dict[str, Numbers]:
    """The whole model's tensors in its own order: those of ``base``, what was ``learned``, and merged ones.

    Raises InputError unless ``base`` has the weights of the hash ``sha256``; ``where`` names what needs them.
    """
    names = stored_names(config)
    if not (base / "config.json").is_file():
        raise InputError(
            f"{where}: adapters for the weights of {base}, which is not there; put it back, or take a finished run"
        )
    stored = read_stored(base, [*names, _HEAD])
    tied = {_HEAD: stored[_WORDS]} if config.tie_word_embeddings and _WORDS in stored else {}
    if tensors_hash(stored | tied) != sha256:
        raise InputError(
            f"{where}: adapters for the weights that {base} had, and it has others now; put those back, or train anew"
        )
    found: dict[str, Numbers] = {}
    for name in names:
        adapter = name.removesuffix(".weight")
        if adapter + _A in learned:
            found[name] = Merged(stored[name], learned[adapter + _A], learned[adapter + _B], scale)
        elif name in learned:
            found[name] = Held(learned[name])
        elif name in stored:
            found[name] = stored[name]
        else:
            raise InputError(f"{where}: neither this nor {base} has {name}; {AGAIN}")
    return found


def stored_names(config: "ParrotConfig") -> dict[str, tuple[int, ...]]:
    """The tensors that a checkpoint of ``config`` stores, in the model's order, with their shapes."""
    from parrot_train.random_checkpoint import tensors

    return {name: tuple(tensor.shape) for name, tensor in tensors(config, "fp32").items()}


def merged_bytes(config: "ParrotConfig") -> int:
    """Bytes of the whole model in float32."""
    return 4 * sum(math.prod(shape) for shape in stored_names(config).values())
