"""A stage's settings in the words of the transformers Trainer."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from parrot_runtime.errors import InputError
from parrot_train.checkpoint import CHECKPOINTS
from parrot_train.config import StageConfig


def check_batches(stage: StageConfig, world_size: int) -> int:
    """Micro-batches per device that make a global batch. Raises InputError for one that the devices do not divide."""
    steps, rest = divmod(stage.global_batch, stage.micro_batch * world_size)
    if rest:
        raise InputError(
            f"global_batch {stage.global_batch} is no multiple of micro_batch {stage.micro_batch} times {world_size} "
            "devices; change one of the two"
        )
    return steps


def training_arguments(
    run: Path, stage: StageConfig, *, world_size: int, workers: int, deepspeed: dict[str, Any] | None = None
) -> TrainingArguments:
    """The stage's settings in the Trainer's words, with DeepSpeed's configuration where it is used.

    Raises InputError as ``check_batches`` does.
    """
    cuda = torch.cuda.is_available()
    # Where `accelerate launch` has set them, they would go before the stage's own; and compiled, a model is another.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if stage.precision == "bf16" else "no"
    os.environ["ACCELERATE_DYNAMO_BACKEND"] = "no"
    arguments = TrainingArguments(
        output_dir=str(run / CHECKPOINTS),
        per_device_train_batch_size=stage.micro_batch,
        gradient_accumulation_steps=check_batches(stage, world_size),
        deepspeed=deepspeed,
        num_train_epochs=stage.epochs,
        max_steps=stage.max_steps or -1,
        learning_rate=stage.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(stage.scheduler, stage.scheduler),
        warmup_steps=stage.warmup_ratio,  # below 1 the Trainer takes it as a share of the steps
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.clip,
        optim="adamw_torch_fused",
        bf16=stage.precision == "bf16",
        tf32=True if cuda else None,
        **_recompute(stage.gradient_checkpointing),
        save_strategy="steps",
        save_steps=stage.save_steps,
        eval_strategy="steps" if stage.eval_steps else "no",
        eval_steps=stage.eval_steps,
        logging_steps=stage.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is no number ends the run: see training_step
        seed=stage.seed,
        use_cpu=not cuda,
        dataloader_num_workers=workers,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )
    if world_size == 1:
        keep_one_device(arguments)
    return arguments


def keep_one_device(arguments: TrainingArguments) -> None:
    """Without a launcher the Trainer would share each batch out to all GPUs (DataParallel), which cuts the rows of
    prompts and those of pictures as if each had one picture."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1


def _recompute(wanted: bool) -> dict[str, Any]:
    """Gradient checkpointing, under the name that the installed transformers has for it."""
    if not wanted:
        return {}
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}
