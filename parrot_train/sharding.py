"""What DeepSpeed is told: how a stage's weights, gradients and optimiser state are shared out over the ranks.

Batch sizes, precision and clipping are the stage's own settings, and so are optimiser and schedule: torch's AdamW with
a learning rate per part. DeepSpeed compiles nothing for them.
"""

import importlib.util
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError
from parrot_train.config import StageConfig
from parrot_train.data.cache import file_hash

_OFFLOADED = {"none": (), "optimizer": ("optimizer",), "all": ("optimizer", "param")}
# Left to the Trainer, which has the stage's values.
_FILLED = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)


def deepspeed_settings(stage: StageConfig, where: str) -> dict[str, Any] | None:
    """DeepSpeed's configuration for a launched stage, or None for plain data parallelism.

    ``where`` names the stage's section in errors. Raises InputError when DeepSpeed is wanted and not installed, for a
    file of one's own that is no JSON object or sets what is the stage's, and when accelerate was asked to share out.
    """
    for plugin in ("DEEPSPEED", "FSDP"):
        if os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() in ("true", "1"):
            raise InputError(
                f"accelerate is configured for {plugin}, and here {where}.zero says what is shared out; launch without "
                "it, with --multi_gpu"
            )
    if not stage.zero:
        return None
    if importlib.util.find_spec("deepspeed") is None:
        raise InputError(
            f"{where}.zero is {stage.zero} and DeepSpeed is not installed; pip install 'parrot-edge[deepspeed]', or "
            f"--set {where}.zero=0 to keep a copy of everything on each device"
        )
    settings = _own(Path(stage.deepspeed), where) if stage.deepspeed else {"zero_optimization": _zero(stage)}
    settings |= dict.fromkeys(_FILLED, "auto")
    bf16, told = stage.precision == "bf16", settings.get("bf16", {})
    if told.get("enabled", "auto") not in ("auto", bf16):
        raise InputError(
            f"{where}.deepspeed={stage.deepspeed}: bf16 is {told['enabled']}, and {where}.precision is "
            f"{stage.precision}; leave one of the two out"
        )
    settings["bf16"] = told | {"enabled": bf16}
    settings["zero_force_ds_cpu_optimizer"] = False
    settings.setdefault("zero_optimization", {})["stage3_gather_16bit_weights_on_model_save"] = True
    return settings


def start_deepspeed() -> None:
    """Let DeepSpeed know the process group that is there, before any part of a model is made."""
    import deepspeed
    import torch

    use_gloo_alone()
    warnings.filterwarnings("ignore", message=".torch.distributed.* is deprecated", category=FutureWarning)
    # The Trainer leaves accumulation to DeepSpeed's settings; accelerate takes that for an oversight.
    logging.getLogger("accelerate.accelerator").setLevel(logging.ERROR)
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend())


def use_gloo_alone() -> None:
    """Let ranks on CPUs talk through gloo: DeepSpeed would first compile an all-reduce of its own, for one machine."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def describe(stage: StageConfig, ranks: int) -> dict[str, Any]:
    """What of the sharing decides the result of a launched run, for ``run.json``."""
    if stage.deepspeed:
        return {"ranks": ranks, "deepspeed": file_hash(Path(stage.deepspeed))}
    return {"ranks": ranks, "zero": stage.zero, "offload": stage.offload}


def _zero(stage: StageConfig) -> dict[str, Any]:
    places = {f"offload_{what}": {"device": "cpu", "pin_memory": True} for what in _OFFLOADED[stage.offload]}
    return {"stage": stage.zero, **places}


def _own(path: Path, where: str) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{where}.deepspeed={path}: cannot be read ({error}); expected a JSON object") from error
    if not isinstance(settings, dict):
        raise InputError(f"{where}.deepspeed={path}: holds a {type(settings).__name__}; expected a JSON object")
    for name in ("optimizer", "scheduler", "fp16", "amp"):
        if name in settings:
            raise InputError(
                f"{where}.deepspeed={path}: has '{name}', which is for {where}'s own settings to say; leave it out"
            )
    for name in _FILLED:
        if settings.get(name, "auto") != "auto":
            raise InputError(
                f"{where}.deepspeed={path}: sets {name} to {settings[name]}, which follows from {where}'s own settings "
                "and the number of devices; leave it out"
            )
    for name in ("bf16", "zero_optimization"):
        if not isinstance(settings.get(name, {}), dict):
            raise InputError(f"{where}.deepspeed={path}: {name} is {settings[name]!r}; expected an object")
    return settings
