"""Checkpoints of random weights, of a known architecture in its real size and format, for tests and measurements.

What a computer can export and run, and how fast, does not depend on the values of the weights: no download is needed to
find out. One tensor is made at a time, and no more than a shard is in memory.
"""

import json
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from parrot_runtime.publish import publish_directory
from parrot_train.recipe import write_companions
from parrot_train.shards import INDEX_NAME, WEIGHTS_NAME

if TYPE_CHECKING:
    from parrot_train.model import ParrotConfig

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHARD_BYTES = 1 << 30


def write_random_checkpoint(
    config: "ParrotConfig",
    folder: Path,
    *,
    dtype: str = "bf16",
    seed: int = 0,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda _size: None,
) -> int:
    """Write a checkpoint of ``config`` to ``folder``; its size in bytes.

    Matrices are normal with the language model's ``initializer_range``, norms one, biases zero. The tokenizer is
    nano's, whose tokens are the first rows of any larger vocabulary. The same seed gives the same weights.

    ``progress`` is told the bytes of each tensor. Raises InputError when ``folder`` exists and ``force`` is not given.
    """
    generator = torch.Generator().manual_seed(seed)
    with publish_directory(folder, force=force) as partial:
        places: dict[str, str] = {}
        shard: dict[str, torch.Tensor] = {}
        total = held = 0
        for name, shape in tensor_shapes(config):
            tensor = _values(name, shape, config, DTYPES[dtype], generator)
            if shard and held + tensor.nbytes > shard_bytes:
                _save(shard, partial, places)
                held = 0
            shard[name] = tensor
            held += tensor.nbytes
            total += tensor.nbytes
            progress(tensor.nbytes)
        _save(shard, partial, places)
        _index(partial, places, total)
        config.save_pretrained(partial)
        tokenizer = Path(str(resources.files("parrot_train.nano"))) / "weights/llm/tokenizer.json"
        write_companions(partial, config, tokenizer, {})
    return total


def tensor_shapes(config: "ParrotConfig") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor a checkpoint of ``config`` stores, in the model's order."""
    from parrot_train.model import ParrotForConditionalGeneration

    with torch.device("meta"):
        model = ParrotForConditionalGeneration(config)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        if not (tied and name == "lm_head.weight"):
            yield name, tuple(tensor.shape)


def parameter_bytes(config: "ParrotConfig", dtype: str) -> int:
    """Bytes of all tensors of a checkpoint of ``config`` in ``dtype``."""
    return sum(torch.Size(shape).numel() for _, shape in tensor_shapes(config)) * DTYPES[dtype].itemsize


def _values(
    name: str, shape: tuple[int, ...], config: "ParrotConfig", dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1 and name.endswith("weight"):
        return torch.ones(shape, dtype=dtype)
    return torch.empty(shape, dtype=dtype).normal_(0.0, config.text_config.initializer_range, generator=generator)


def _save(shard: dict[str, torch.Tensor], folder: Path, places: dict[str, str]) -> None:
    """Write the tensors held as the next shard, and let them go."""
    file = f"model-{len(set(places.values())) + 1:05d}.safetensors"
    save_file(shard, folder / file, metadata={"format": "pt"})
    (folder / file).chmod(0o644)  # safetensors writes for its owner alone
    places |= dict.fromkeys(shard, file)
    shard.clear()


def _index(folder: Path, places: dict[str, str], total: int) -> None:
    """Give the shards the names that transformers gives, and list them; a single one is the whole model."""
    files = sorted(set(places.values()))
    if len(files) == 1:
        (folder / files[0]).rename(folder / WEIGHTS_NAME)
        return
    names = {file: f"{Path(file).stem}-of-{len(files):05d}.safetensors" for file in files}
    for file, name in names.items():
        (folder / file).rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {name: names[file] for name, file in places.items()}}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
