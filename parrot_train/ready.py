"""What a stage needs before it begins: its model, its checked data, and the beginning of ``run.json``."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError
from parrot_train import extension, start
from parrot_train.config import EXTEND, Stage, TrainConfig, section_of
from parrot_train.config_files import to_mapping
from parrot_train.data.files import data_files, heldout_files
from parrot_train.data.prepare import Prepared, prepare, worker_count
from parrot_train.distributed import Ranks, parameter_count
from parrot_train.lora import Learned, adapted
from parrot_train.nano.world import reading
from parrot_train.provenance import ALONE, describe_origin
from parrot_train.recipe import image_recipe
from parrot_train.sharding import deepspeed_settings, describe, start_deepspeed


@dataclass(frozen=True)
class StageRequest:
    """What a person asked for: the stage, its settings, where from and where to."""

    stage: Stage
    config: TrainConfig
    output: Path | None = None
    source: Path | None = None
    resume: bool = False
    force: bool = False

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.output or Path("runs") / self.config.name / section_of(self.stage)

    @property
    def starts_from(self) -> Path:
        """The run stage 2 starts from, a stage 1 or an earlier stage 2; or the one that is extended."""
        return self.source or Path("runs") / self.config.name / ("stage2" if self.stage == EXTEND else "stage1")


@dataclass(frozen=True)
class Ready:
    """A stage with all that it needs to begin: ``note`` is the beginning of ``run.json``.

    ``kept`` is the mixture that an extension must not change, where the main process is this one; ``learned`` says how
    a model with adapters is kept.
    """

    arguments: Any
    model: Any
    tokenizer: Path
    prepared: Prepared
    heldout: Any
    note: dict[str, Any]
    kept: Mapping[str, Any]
    learned: Learned | None


def make_ready(request: StageRequest, ranks: Ranks, held: ExitStack) -> Ready:
    """Model, tokenizer file and checked data; in the run folder nothing is written but what ``start`` needs.

    ``held`` keeps a nano world that is read from being replaced.
    """
    import torch

    from parrot_train.arguments import check_batches, training_arguments
    from parrot_train.model.trainable import set_trainable
    from parrot_train.reports import check_reports

    config, stage = request.config, request.config.stage(request.stage)
    # Before a large model is read.
    files = ranks.from_main(lambda: held.enter_context(reading(data_files(config, request.stage))))
    asked_files = []
    if stage.eval_steps:
        asked_files = ranks.from_main(lambda: held.enter_context(reading(heldout_files(config, request.stage, files))))
    check_batches(stage, ranks.world)
    if ranks.main:
        check_reports(stage, section_of(request.stage))
    settings = deepspeed_settings(stage, section_of(request.stage)) if ranks.launched else None
    if ranks.launched:
        dtype = torch.bfloat16 if settings and stage.precision == "bf16" else torch.float32
        origin = start.write(config, request.stage, request.starts_from, request.run, ranks, dtype=dtype)
    else:
        model, tokenizer, origin = start.make(config, request.stage, request.starts_from, request.run)
    workers = worker_count(config.data, ranks.local_world) if config.data.image_cache == "none" else 0
    if settings:
        start_deepspeed()
    # From here on transformers knows of ZeRO 3, if that it is, and reads a model into the ranks' shares.
    arguments = training_arguments(request.run, stage, world_size=ranks.world, workers=workers, deepspeed=settings)
    if ranks.launched:
        model, tokenizer = start.read(request.run, ranks)
    learned = adapted(model, stage, request.starts_from, origin["sha256"])
    set_trainable(model, request.stage, kept=_kept_experts(request, model))
    prepared = _prepare(files, request, model, tokenizer, ranks)
    _check_pictures(prepared, request)
    heldout, asked = _heldout(asked_files, request, model, tokenizer, ranks) if asked_files else (None, {})
    note = _describe(request, model, prepared, origin, ranks) | asked
    kept = extension.stored_mixture(request.starts_from) if request.stage == EXTEND and ranks.main else {}
    return Ready(arguments, model, tokenizer, prepared, heldout, note, kept, learned)


def _prepare(files: list[Path], request: StageRequest, model: Any, tokenizer: Path, ranks: Ranks) -> Prepared:
    prepared = ranks.in_turn(
        lambda: prepare(
            files,
            request.config.data,
            tokenizer=tokenizer,
            recipe=image_recipe(model.config),
            image_tokens=model.config.image_tokens,
            fallback=request.run,
        )
    )
    ranks.check_same("the data are", prepared.sources)
    return prepared


def _check_pictures(prepared: Prepared, request: StageRequest) -> None:
    """Raise InputError for a stage 1 in which nothing could be learnt."""
    if request.stage == 1 and not prepared.conversations.image_counts.any():
        raise InputError(
            "none of stage 1's samples has a picture, and the projector, which alone learns, sees nothing else; name "
            "data with pictures"
        )


def _heldout(
    files: list[Path], request: StageRequest, model: Any, tokenizer: Path, ranks: Ranks
) -> tuple[Any, dict[str, Any]]:
    """The questions of an evaluation, and what ``run.json`` says of them."""
    from parrot_train.heldout import HeldOut

    stage = request.config.stage(request.stage)
    prepared = _prepare(files, request, model, tokenizer, ranks)
    heldout = HeldOut(prepared.conversations, tokenizer, per_language=stage.eval_samples, seed=stage.seed)
    told = {"data": prepared.sources, "samples": heldout.counts()}
    if prepared.report:
        told["left_out"] = prepared.report
    return heldout, {"heldout": told}


def _describe(
    request: StageRequest, model: Any, prepared: Prepared, origin: dict[str, Any], ranks: Ranks
) -> dict[str, Any]:
    """``run.json`` as it stands when training begins."""
    counts = [(parameter_count(parameter), parameter.requires_grad) for parameter in model.parameters()]
    kept = _kept_experts(request, model)
    learning = (model.config.num_experts - kept) / model.config.num_experts if kept else 1
    origin_run = request.starts_from if request.stage != 1 else None
    per_machine = ranks.local_world if ranks.launched else None
    return {
        "status": "running",
        "stage": request.stage,
        "config": request.config.name,
        "started": now(),
        "from": origin,
        "data": prepared.sources,
        "samples": len(prepared.conversations),
        "skipped": prepared.report["skipped"] if prepared.report else 0,
        "languages": _language_counts(prepared),
        "parameters": sum(count for count, _ in counts),
        "trained_parameters": round(sum(count for count, learns in counts if learns) * learning),
        "parallel": describe(request.config.stage(request.stage), ranks.world) if ranks.launched else ALONE,
        "settings": to_mapping(request.config),
    } | describe_origin(request.stage, origin_run, ranks=ranks.world, per_machine=per_machine)


def _kept_experts(request: StageRequest, model: Any) -> int:
    """How many experts were there before an extension, and stay as they are; 0 where all learn."""
    return model.config.num_experts - request.config.extend.added_experts if request.stage == EXTEND else 0


def _language_counts(prepared: Prepared) -> dict[str, int]:
    conversations = prepared.conversations
    return {
        code: int((conversations.languages == number).sum()) for number, code in enumerate(conversations.language_codes)
    }


def now() -> str:
    """The time in UTC, as ``run.json`` writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
