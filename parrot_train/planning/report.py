"""A plan as text."""

from collections.abc import Iterator

from parrot_train.planning.plan import GIB, Fit, Plan, StagePlan

_COLUMNS = ("weights", "gradients", "optimiser", "buffers", "activations", "total")
_HELD = {"none": "weights as the products need them", "nf4": "weights in NF4"}


def render(plan: Plan) -> str:
    """The plan's lines, without a last newline."""
    machine = plan.machine
    lines = [
        f"{plan.config} on {machine.gpus} × {machine.name}: {machine.gpu.memory:g} GiB each, of which "
        f"{machine.usable / GIB:.1f} for tensors, and {machine.gpu.flops / 1e12:g} TFLOP/s at most"
    ]
    for stage in plan.stages:
        lines += ["", *_stage(stage, plan)]
    lines += ["", f"{_hours(plan.hours)} in all at a utilisation of {plan.utilisation:g}"]
    if plan.paper:
        paper = plan.paper
        lines.append(
            f"the paper: {paper.hours:g} hours on {paper.gpus} × {paper.gpu}, in which this plan's operations are a "
            f"utilisation of {paper.utilisation:.2f} ({paper.model_utilisation:.2f} without what is computed twice)"
        )
    return "\n".join(lines)


def _stage(stage: StagePlan, plan: Plan) -> Iterator[str]:
    yield (
        f"Stage {stage.stage}: {_millions(stage.trained)} parameters learn, {_millions(stage.frozen)} are frozen"
        + (f"; adapters of rank {stage.lora.rank} beside {_HELD[stage.lora.quantize]}" if stage.lora else "")
    )
    yield f"  {stage.samples:,} samples: {stage.source}"
    again = "" if stage.gradient_checkpointing else "out"
    yield (
        f"  largest micro batch: {stage.largest.rows} × {stage.largest.length:,} positions, {stage.largest.images:,} "
        f"images, {stage.largest.answers:,} answer tokens; with{again} gradient checkpointing"
    )
    yield f"  {'GiB per GPU':<12}" + "".join(f"{name:>12}" for name in (*_COLUMNS[:-1], "in all"))
    for fit in stage.fits:
        numbers = "".join(f"{getattr(fit.memory, name) / GIB:>12.2f}" for name in _COLUMNS)
        configured = ", as configured" if fit.zero == stage.zero else ""
        yield f"  {f'ZeRO {fit.zero}':<12}{numbers}  {_verdict(fit)}{configured}"
    yield f"  {_suggestion(stage, plan)}"
    parts = (("forward", stage.flops.forward), ("backward", stage.flops.backward), ("again", stage.flops.recomputed))
    yield (
        f"  a step: {stage.global_batch} conversations, {stage.tokens:,.0f} tokens, {_peta(stage.flops.total)} PFLOP "
        f"({', '.join(f'{name} {_peta(count)}' for name, count in parts)})"
    )
    yield f"  {stage.steps:,} steps: {_hours(stage.hours)}"


def _peta(operations: int) -> str:
    return f"{operations / 1e15:,.3g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 0.1 else f"{hours * 3600:,.2g} seconds"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} million" if count >= 1e5 else f"{count:,}"


def _verdict(fit: Fit) -> str:
    if fit.fits:
        return f"fits; up to micro_batch {fit.largest_micro_batch}"
    return f"does not fit; micro_batch {fit.largest_micro_batch} does" if fit.largest_micro_batch else "does not fit"


def _suggestion(stage: StagePlan, plan: Plan) -> str:
    found = stage.suggestion
    if found is None:
        if stage.lora:
            return "nothing fits: adapters are trained on one GPU, and a sample alone is too much for this one"
        return "nothing fits: a sample alone is too much, on as many GPUs as there are conversations in a step"
    accumulation = f"{found.accumulation} micro batch{'es' if found.accumulation > 1 else ''} a step"
    what = f"ZeRO {found.zero}, micro_batch {found.micro_batch}, {accumulation}"
    if found.gpus != plan.machine.gpus:
        return f"does not fit on {plan.machine.gpus}; on {found.gpus}: {what}"
    if found.gradient_checkpointing != stage.gradient_checkpointing:
        what += ", gradient_checkpointing true"
    return f"suggested: {what}"
