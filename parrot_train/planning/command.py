"""``parrot-train plan``: from its options to its text or JSON."""

import json
from dataclasses import asdict, replace

from parrot_runtime.errors import InputError
from parrot_runtime.strict import nearest
from parrot_train.config import TrainConfig
from parrot_train.planning.devices import GPUS
from parrot_train.planning.plan import Machine, make_plan
from parrot_train.planning.report import render


def run_plan(
    config: TrainConfig,
    *,
    gpus: int,
    gpu: str,
    gpu_memory: float | None,
    gpu_flops: float | None,
    utilisation: float,
    stages: tuple[int, ...],
    data: tuple[str, ...],
    as_json: bool,
) -> str:
    """The plan; memory in GiB and speed in TFLOP/s replace those of the named GPU. Raises InputError."""
    if gpu not in GPUS:
        raise InputError(f"--gpu {gpu}: expected one of {', '.join(GPUS)}{nearest(gpu, GPUS)}")
    device = GPUS[gpu]
    if gpu_memory is not None:
        device = replace(device, memory=gpu_memory)
    if gpu_flops is not None:
        device = replace(device, flops=gpu_flops * 1e12)
    plan = make_plan(config, Machine(gpus, gpu, device), utilisation=utilisation, stages=stages, data=data)
    if not as_json:
        return render(plan)
    found = asdict(plan)
    for stage, planned in zip(found["stages"], plan.stages, strict=True):
        for fit, own in zip(stage["fits"], planned.fits, strict=True):
            fit["memory"]["total"] = own.memory.total
        stage["flops"]["total"] = planned.flops.total
    return json.dumps(found)
