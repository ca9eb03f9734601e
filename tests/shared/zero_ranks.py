"""One rank of a stage 2 under DeepSpeed, on the CPU: ZeRO 2 in bfloat16, then ZeRO 3 in float32.

Run by torch's launcher as ``zero_ranks.py CHECKPOINT DATA OUTPUT``. Below OUTPUT/zero2 and OUTPUT/zero3 it leaves the
trainer's own checkpoint-2; ``gathered``, the weights that DeepSpeed's optimiser holds in memory at the end, collected
from all ranks and in float32; and ``saved``, what the Trainer saves with the weights gathered.
"""

import dataclasses
import os
import sys
from pathlib import Path

import deepspeed
import torch
from accelerate.state import AcceleratorState
from deepspeed.utils import safe_get_full_fp32_param
from safetensors.torch import save_file

from parrot_train.arguments import training_arguments
from parrot_train.checkpoint import load_checkpoint
from parrot_train.config_files import load_config
from parrot_train.data.prepare import prepare
from parrot_train.model.trainable import set_trainable
from parrot_train.recipe import image_recipe, write_companions
from parrot_train.sharding import use_gloo_alone
from parrot_train.trainer import ParrotTrainer


def train(checkpoint: Path, data: Path, output: Path, zero: int, precision: str) -> None:
    """Two steps of stage 2 on both ranks."""
    config = load_config(
        "nano",
        [
            "data.workers=0",
            "stage2.global_batch=4",
            "stage2.micro_batch=2",
            "stage2.max_steps=2",
            "stage2.save_steps=2",
            "stage2.learning_rate=1e-2",
            "stage2.gradient_checkpointing=false",
            f"stage2.precision={precision}",
        ],
    )
    arguments = training_arguments(output, config.stage2, world_size=int(os.environ["WORLD_SIZE"]), workers=0)
    arguments = dataclasses.replace(arguments, deepspeed=deepspeed_settings(zero))
    model = load_checkpoint(checkpoint)
    set_trainable(model, 2)
    prepared = prepare(
        [data],
        config.data,
        tokenizer=checkpoint / "tokenizer.json",
        recipe=image_recipe(model.config),
        image_tokens=model.config.image_tokens,
        fallback=output,
    )

    def companions(folder: Path) -> None:
        write_companions(folder, model.config, checkpoint / "tokenizer.json", {})

    trainer = ParrotTrainer(
        model,
        arguments,
        prepared.conversations,
        run=output,
        stage=config.stage2,
        stop_signal=lambda: False,
        companions=companions,
    )
    trainer.train()
    save_gathered(trainer.model, output / "gathered")
    trainer.deepspeed.config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    trainer.deepspeed._config.zero_config.gather_16bit_weights_on_model_save = True
    trainer.save_model(str(output / "saved"))
    if arguments.should_save:
        companions(output / "saved")


def deepspeed_settings(zero: int) -> dict:
    """A person's ds_config.json; torch's AdamW, since DeepSpeed's own is compiled."""
    return {
        "zero_optimization": {
            "stage": zero,
            "stage3_param_persistence_threshold": 0,  # every tensor is partitioned, however small
            "sub_group_size": 5000,  # ZeRO 3: several groups per rank
            "stage3_gather_16bit_weights_on_model_save": False,
        },
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto", "torch_adam": True}},
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }


def save_gathered(model: torch.nn.Module, folder: Path) -> None:
    """All weights in float32: DeepSpeed's own master copies of what was trained."""
    weights = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            weights[name] = safe_get_full_fp32_param(parameter).clone()
        else:
            with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
                weights[name] = parameter.detach().float().clone()
    if torch.distributed.get_rank() == 0:
        folder.mkdir()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    checkpoint, data, output = map(Path, sys.argv[1:])
    use_gloo_alone()
    train(checkpoint, data, output / "zero2", 2, "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    train(checkpoint, data, output / "zero3", 3, "fp32")
