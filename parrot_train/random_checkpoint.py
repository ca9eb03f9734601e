"""Checkpoints of random weights, of a known architecture in its real size and format, for tests and measurements.

What a computer can export and run, and how fast, does not depend on the values of the weights: no download is needed to
find out. One tensor is made at a time, and no more than a shard is in memory.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from parrot_runtime.manifest import TOKENIZER_NAME
from parrot_runtime.publish import publish_directory
from parrot_train.nano.backbones import shipped
from parrot_train.recipe import write_companions
from parrot_train.shards import INDEX_NAME

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
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write a checkpoint of ``config`` to ``folder``; its size in bytes.

    Matrices are normal with the language model's ``initializer_range``, norms one, biases zero. The tokenizer is
    nano's, whose tokens are the first rows of any larger vocabulary. The same seed gives the same weights.

    ``progress`` is called with bytes done and bytes to do. Raises InputError when ``folder`` exists and ``force`` is
    not given.
    """
    shapes = tensors(config, dtype)
    plan = split_torch_state_dict_into_shards(shapes, max_shard_size=shard_bytes)
    done, total = 0, sum(tensor.nbytes for tensor in shapes.values())
    with publish_directory(folder, force=force) as partial:
        for file, names in plan.filename_to_tensors.items():
            shard = {}
            for name in names:
                # Of its own for every tensor, so that the weights do not depend on how they are cut into shards.
                generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
                shard[name] = _values(name, shapes[name], config.text_config.initializer_range, generator)
                done += shard[name].nbytes
                progress(done, total)
            save_file(shard, partial / file, metadata={"format": "pt"})
            (partial / file).chmod(0o644)  # safetensors writes for its owner alone
        if plan.is_sharded:
            index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
            (partial / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        config.save_pretrained(partial)
        write_companions(partial, config, shipped("llm") / TOKENIZER_NAME, {})
    return total


def tensors(config: "ParrotConfig", dtype: str) -> dict[str, torch.Tensor]:
    """Every tensor a checkpoint of ``config`` stores, in the model's order, on the meta device: no numbers."""
    from parrot_train.model import ParrotForConditionalGeneration

    with torch.device("meta"):
        model = ParrotForConditionalGeneration(config).to(DTYPES[dtype])
    stored = model.state_dict()
    if config.tie_word_embeddings:
        del stored["lm_head.weight"]
    return stored


def _values(name: str, shape: torch.Tensor, spread: float, generator: torch.Generator) -> torch.Tensor:
    made = torch.empty_like(shape, device="cpu")
    if name.endswith("bias"):
        return made.zero_()
    if made.ndim == 1 and name.endswith("weight"):
        return made.fill_(1.0)
    return made.normal_(0.0, spread, generator=generator)
