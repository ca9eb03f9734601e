"""The model that a launched run starts from: put together once, by the main process, then read by every rank.

Its random parts, projector or mixture, are thereby the same whatever the number of ranks, and the same as without a
launcher. It passes through the run folder, ``RUN/.start``, and is gone from there once all have read it. Under ZeRO 3
transformers reads it into the ranks' shares tensor by tensor, so that none but the main process ever holds it whole.
"""

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from parrot_runtime.errors import InputError
from parrot_runtime.manifest import TOKENIZER_NAME
from parrot_runtime.publish import write_file
from parrot_train import assemble, extension
from parrot_train.config import EXTEND, Stage, TrainConfig
from parrot_train.distributed import Ranks

if TYPE_CHECKING:
    from parrot_train.model import ParrotForConditionalGeneration

FOLDER = ".start"
_TOKEN = "token"


def make(
    config: TrainConfig, stage: Stage, source: Path, run: Path
) -> tuple["ParrotForConditionalGeneration", Path, dict]:
    """The model of a stage with its new parts (float32), the tokenizer file, and what ``run.json`` says of both.

    Where an extension's data have to be read for it, caches that find no other place go to ``run``.
    """
    torch.manual_seed(config.stage(stage).seed)
    if stage == EXTEND:
        return extension.extended(config, source, run)
    return assemble.from_backbones(config) if stage == 1 else assemble.from_run(config, source)


def write(
    config: TrainConfig, stage: Stage, source: Path, run: Path, ranks: Ranks, *, dtype: torch.dtype
) -> dict[str, Any]:
    """Let the main process ``make`` the model and leave it for ``read``, in ``dtype``; what ``run.json`` says of it.

    No configuration of DeepSpeed may be known to transformers yet: under ZeRO 3 it would hand out shares at once.
    Raises InputError in a rank that does not see the run folder of the main process.
    """
    folder = run / FOLDER
    origin, token = ranks.from_main(lambda: _write(config, stage, source, run, dtype))
    try:
        seen = (folder / _TOKEN).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    if seen != token:
        raise InputError(
            f"{run}: rank {ranks.rank} does not see there what the main process wrote; the run folder has to be on a "
            "disk that all machines share"
        )
    return origin


def read(run: Path, ranks: Ranks) -> tuple["ParrotForConditionalGeneration", Path]:
    """The model that was written, in every rank, and the tokenizer file, which stays until ``clear``."""
    from parrot_train.model import ParrotForConditionalGeneration

    folder = run / FOLDER
    model, report = ParrotForConditionalGeneration.from_pretrained(folder, dtype="auto", output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{folder}: lacks {len(missing)} of the model's weights, first {missing[0]}; start again")
    # Nothing was renamed. Under ZeRO 3 transformers takes all renamings it knows for used, and saves by their inverse.
    model._weight_conversions = None
    ranks.greatest(0)  # all have read
    if ranks.main:
        for path in folder.glob("*.safetensors"):
            path.unlink()
    return model, folder / TOKENIZER_NAME


def clear(run: Path) -> None:
    """Remove what ``share`` left in the run folder."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def _write(config: TrainConfig, stage: Stage, source: Path, run: Path, dtype: torch.dtype) -> tuple[dict, str]:
    folder = run / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, tokenizer, origin = make(config, stage, source, run)
    model.to(dtype).save_pretrained(folder)
    shutil.copyfile(tokenizer, folder / TOKENIZER_NAME)
    token = uuid.uuid4().hex
    write_file(folder / _TOKEN, token.encode())
    return origin, token
