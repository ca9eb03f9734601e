"""What a run needs before there is one: memory per rank under each ZeRO stage, steps, FLOPs and hours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from parrot_runtime.errors import InputError
from parrot_train.architectures import architecture
from parrot_train.config import LoraConfig, StageConfig, TrainConfig
from parrot_train.config_files import load_config
from parrot_train.planning.devices import GPUS, Gpu
from parrot_train.planning.flops import Flops, flops
from parrot_train.planning.lengths import Batch, Lengths, stage_lengths
from parrot_train.planning.memory import ZERO_STAGES, Memory, rank_memory
from parrot_train.planning.sizes import Sizes, sizes

GIB = 1 << 30
# What a device does not give to tensors: CUDA's context and NCCL, and holes between tensors. Assumed, not measured.
CONTEXT, HOLES = 1.5 * GIB, 0.04
# Table 13, and which shipped configuration is the paper's.
PAPER = "parrot-qwen2-7b"
PAPER_GPUS, PAPER_GPU, PAPER_HOURS = 16, "a100", 21.0
MOST_GPUS = 4096


@dataclass(frozen=True)
class Machine:
    """The devices: how many, their name, and each one's memory and speed."""

    gpus: int
    name: str
    gpu: Gpu

    @property
    def usable(self) -> int:
        """Bytes of one device that tensors can have."""
        return int(self.gpu.memory * GIB * (1 - HOLES) - CONTEXT)


@dataclass(frozen=True)
class Fit:
    """A ZeRO stage: one rank's memory with the configured micro batch, and the largest one that fits (0: none)."""

    zero: int
    memory: Memory
    fits: bool
    largest_micro_batch: int


@dataclass(frozen=True)
class Suggestion:
    """Settings that fit and reach the global batch; on more devices than there are where these cannot hold it."""

    gpus: int
    zero: int
    micro_batch: int
    accumulation: int
    gradient_checkpointing: bool


@dataclass(frozen=True)
class StagePlan:
    """One stage. ``flops`` are those of the mean optimiser step over all devices, and so are the tokens.

    ``zero`` is what the configuration says; one device has none, unless a launcher starts it. With ``lora`` there is
    one device and no launcher.
    """

    stage: int
    trained: int
    frozen: int
    lora: LoraConfig | None
    samples: int
    source: str
    global_batch: int
    micro_batch: int
    accumulation: int
    gradient_checkpointing: bool
    zero: int
    largest: Batch
    fits: tuple[Fit, ...]
    suggestion: Suggestion | None
    steps: int
    tokens: float
    flops: Flops
    hours: float

    @property
    def operations(self) -> float:
        """Of all steps."""
        return self.steps * self.flops.total


@dataclass(frozen=True)
class PaperRun:
    """The paper's hours, and which share of its devices' peak the planned operations were in that time.

    ``utilisation`` counts all that is computed, ``model_utilisation`` (MFU) nothing twice.
    """

    gpus: int
    gpu: str
    hours: float
    utilisation: float
    model_utilisation: float


@dataclass(frozen=True)
class Plan:
    """A configuration on a machine that reaches ``utilisation`` of its peak; ``hours`` of the stages asked for."""

    config: str
    machine: Machine
    utilisation: float
    stages: tuple[StagePlan, ...]
    hours: float
    paper: PaperRun | None


def make_plan(
    config: TrainConfig,
    machine: Machine,
    *,
    utilisation: float,
    stages: Sequence[int] = (1, 2),
    data: tuple[str, ...] = (),
) -> Plan:
    """Plan ``stages`` of ``config``, the lengths of whose samples are measured in ``data`` where that is given.

    Raises InputError for a batch that does not divide over the devices, backbones of unknown shape, and data that is
    neither here nor one of the paper's files.
    """
    planned = tuple(_plan_stage(config, machine, utilisation, stage, data) for stage in stages)
    return Plan(
        config.name, machine, utilisation, planned, sum(stage.hours for stage in planned), _paper(config, planned)
    )


def _plan_stage(
    config: TrainConfig, machine: Machine, utilisation: float, stage: int, data: tuple[str, ...]
) -> StagePlan:
    settings = config.stage(stage)
    lora = getattr(settings, "lora", None)
    if lora and lora.rank and machine.gpus > 1:
        raise InputError(
            f"stage{stage}.lora.rank is {lora.rank} and there are {machine.gpus} GPUs, but adapters train on one; "
            f"give --gpus 1, or --set stage{stage}.lora.rank=0"
        )
    accumulation = _accumulation(settings, machine.gpus, stage)
    model = architecture(config, stage)
    shape = sizes(model, stage, lora)
    lengths = stage_lengths(config, stage, model.image_tokens, data)
    totals = lengths.totals(settings.micro_batch, settings.seed)
    per_epoch = -(-len(lengths) // settings.global_batch)  # as the Trainer counts: an epoch's last step may be smaller
    done = flops(shape, totals, recompute=settings.gradient_checkpointing)
    steps = settings.max_steps or math.ceil(settings.epochs * per_epoch)
    per_step = Flops(*(part // per_epoch for part in (done.forward, done.backward, done.recomputed, done.needed)))
    fitting = tuple(_fit(shape, settings, zero, machine, lengths) for zero in _zeros(shape))
    return StagePlan(
        stage=stage,
        trained=shape.trained,
        frozen=shape.frozen,
        lora=shape.lora,
        samples=len(lengths),
        source=lengths.source,
        global_batch=settings.global_batch,
        micro_batch=settings.micro_batch,
        accumulation=accumulation,
        gradient_checkpointing=settings.gradient_checkpointing,
        zero=settings.zero if machine.gpus > 1 else 0,
        largest=lengths.largest(settings.micro_batch, settings.seed),
        fits=fitting,
        suggestion=_suggest(shape, settings, machine, lengths, fitting),
        steps=steps,
        tokens=totals.tokens / per_epoch,
        flops=per_step,
        hours=steps * per_step.total / (machine.gpus * machine.gpu.flops * utilisation) / 3600,
    )


def _zeros(shape: Sizes) -> tuple[int, ...]:
    """The ZeRO stages that can be: adapters are trained without a launcher."""
    return ZERO_STAGES[:1] if shape.lora else ZERO_STAGES


def _accumulation(settings: StageConfig, gpus: int, stage: int) -> int:
    per_device, rest = divmod(settings.global_batch, gpus)
    if rest:
        raise InputError(
            f"stage{stage}.global_batch {settings.global_batch} is no multiple of {gpus} GPUs; change one of the two"
        )
    if per_device % settings.micro_batch:
        largest = max(size for size in _divisors(per_device) if size < settings.micro_batch)
        raise InputError(
            f"stage{stage}.global_batch {settings.global_batch} is no multiple of micro_batch {settings.micro_batch} "
            f"times {gpus} GPUs; --set stage{stage}.micro_batch={largest} divides it"
        )
    return per_device // settings.micro_batch


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _fit(shape: Sizes, settings: StageConfig, zero: int, machine: Machine, lengths: Lengths) -> Fit:
    memory = _memory(shape, settings, zero, machine.gpus, lengths, settings.micro_batch)
    return Fit(
        zero,
        memory,
        memory.total <= machine.usable,
        _largest_micro_batch(shape, settings, zero, machine, lengths),
    )


def _memory(shape: Sizes, settings: StageConfig, zero: int, gpus: int, lengths: Lengths, micro_batch: int) -> Memory:
    return rank_memory(shape, settings, zero, gpus, lengths.largest(micro_batch, settings.seed))


def _largest_micro_batch(
    shape: Sizes, settings: StageConfig, zero: int, machine: Machine, lengths: Lengths, gpus: int | None = None
) -> int:
    """Of those that divide a device's share of the global batch; 0 where none fits."""
    gpus = gpus or machine.gpus
    best = 0
    for size in _divisors(settings.global_batch // gpus):
        if _memory(shape, settings, zero, gpus, lengths, size).total > machine.usable:
            break
        best = size
    return best


def _suggest(
    shape: Sizes, settings: StageConfig, machine: Machine, lengths: Lengths, fitting: Sequence[Fit]
) -> Suggestion | None:
    """The lowest ZeRO stage, for it talks least, that holds the configured micro batch, else the largest that fits.

    Where nothing fits: with gradient checkpointing, then under ZeRO 3 on more devices but for adapters, then nothing.
    """
    enough = [fit for fit in fitting if fit.largest_micro_batch >= settings.micro_batch] or sorted(
        (fit for fit in fitting if fit.largest_micro_batch), key=lambda fit: -fit.largest_micro_batch
    )
    if enough:
        size = min(enough[0].largest_micro_batch, settings.micro_batch)
        accumulation = settings.global_batch // (machine.gpus * size)
        return Suggestion(machine.gpus, enough[0].zero, size, accumulation, settings.gradient_checkpointing)
    if not settings.gradient_checkpointing:
        again = replace(settings, gradient_checkpointing=True)
        return _suggest(
            shape, again, machine, lengths, [_fit(shape, again, zero, machine, lengths) for zero in _zeros(shape)]
        )
    if shape.lora:
        return None
    for gpus in range(machine.gpus + 1, min(settings.global_batch, MOST_GPUS) + 1):
        if settings.global_batch % gpus == 0:
            size = _largest_micro_batch(shape, settings, 3, machine, lengths, gpus)
            if size:
                return Suggestion(gpus, 3, size, settings.global_batch // (gpus * size), True)
    return None


def _paper(config: TrainConfig, planned: Sequence[StagePlan]) -> PaperRun | None:
    """Only for the paper's own model, data and rules, in both stages: no other run is what took its hours."""
    paper = load_config(PAPER)
    same = all(getattr(config, part) == getattr(paper, part) for part in ("backbones", "model", "data"))
    same &= all(config.stage(number).global_batch == paper.stage(number).global_batch for number in (1, 2))
    if not same or len(planned) != 2:
        return None
    available = PAPER_GPUS * GPUS[PAPER_GPU].flops * PAPER_HOURS * 3600
    return PaperRun(
        PAPER_GPUS,
        PAPER_GPU,
        PAPER_HOURS,
        sum(stage.operations for stage in planned) / available,
        sum(stage.steps * stage.flops.needed for stage in planned) / available,
    )
