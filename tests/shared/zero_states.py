"""Bytes of the tensors that one of two ranks holds under DeepSpeed's ZeRO stages 1 to 3, on the CPU.

Run by torch's launcher as ``zero_states.py OUTPUT``; rank 0 writes ``{"2-bf16-1": bytes, …}`` (training stage,
precision, ZeRO stage) to OUTPUT: what is there after a backward pass and before the optimiser's step.
"""

import gc
import json
import sys
from importlib import import_module
from pathlib import Path

import deepspeed
import torch

from parrot_benchmarks.training_memory import Case, answer_loss, example
from parrot_train.model import ParrotForConditionalGeneration
from parrot_train.model.trainable import set_trainable

# DeepSpeed would compile a shared-memory all-reduce in C++ for ranks of one machine, and do without it elsewhere.
import_module("deepspeed.comm.torch").build_shm_op = lambda: None

BUCKET = 1000


def states(case: Case) -> int:
    """Bytes held after two micro batches of the second step, which has three; the batch itself is left out."""
    before = held()
    torch.manual_seed(0)
    model = ParrotForConditionalGeneration(case.config())
    set_trainable(model, case.stage)
    model.train()
    settings = {
        "train_micro_batch_size_per_gpu": case.rows,
        "gradient_accumulation_steps": 3,
        "bf16": {"enabled": case.precision == "bf16"},
        "zero_optimization": {
            "stage": case.zero,
            "reduce_bucket_size": BUCKET,
            "stage3_param_persistence_threshold": 0,
            "stage3_prefetch_bucket_size": 0,
            "stage3_max_live_parameters": 0,
            "stage3_max_reuse_distance": 0,
        },
        "zero_force_ds_cpu_optimizer": False,
    }
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(learning), config=settings)
    inputs = example(case)
    for number in range(5):
        engine.backward(answer_loss(engine, inputs))
        if number < 4:
            engine.step()
    del inputs
    found = {key: size for key, size in held().items() if key not in before}
    engine.destroy()
    return sum(found.values())


def held() -> dict[int, int]:
    """Bytes by storage, of all tensors that Python knows of."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.device.type == "cpu":
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return found


if __name__ == "__main__":
    deepspeed.init_distributed("gloo")
    torch.set_num_threads(1)
    results = {}
    for stage, precision, zero in ((2, "bf16", 1), (2, "bf16", 2), (2, "bf16", 3), (2, "fp32", 2), (1, "bf16", 3)):
        case = Case("states", stage, precision, zero, width=128, rows=1, length=32, answers=4)
        results[f"{stage}-{precision}-{zero}"] = states(case)
    if torch.distributed.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
    torch.distributed.destroy_process_group()
