"""The two stages, each from a configuration to a finished run folder.

Stage 1 (modality alignment) trains the projector alone, on a LLaVA-form model: there is no mixture to bypass. Stage 2
(multilingual instruction tuning) starts from stage 1's result, adds a mixture of randomly initialised experts, and
trains projector, mixture and language model. The vision encoder is frozen in both.
"""

import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from parrot_runtime.errors import InputError
from parrot_runtime.publish import write_file
from parrot_train import assemble
from parrot_train.checkpoint import (
    CONFIG_FILE,
    RUN_FILE,
    SKIPPED_FILE,
    checkpoint_step,
    clear_run,
    last_good_checkpoint,
    locked,
    publish_files,
    read_run,
    trim_log,
    write_json,
    write_run,
)
from parrot_train.config import NANO, TrainConfig, to_mapping, to_yaml
from parrot_train.data.prepare import Prepared, prepare, worker_count
from parrot_train.recipe import image_recipe, write_companions
from parrot_train.signals import InterruptedRunError, Signals

# Settings that change how a run is done but not what comes out: they may differ when it is resumed.
_FREE_DATA = {"workers", "nano_folder"}
_FREE_STAGE = {"save_steps", "keep_checkpoints", "log_steps"}


@dataclass(frozen=True)
class StageRequest:
    """What a person asked for: the stage, its settings, where from and where to."""

    stage: int
    config: TrainConfig
    output: Path | None = None
    source: Path | None = None
    resume: bool = False
    force: bool = False

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.output or Path("runs") / self.config.name / f"stage{self.stage}"

    @property
    def starts_from(self) -> Path:
        """The run stage 2 starts from: a stage 1, or an earlier stage 2."""
        return self.source or Path("runs") / self.config.name / "stage1"


def run_stage(request: StageRequest) -> dict[str, Any]:
    """Train one stage and return its ``run.json``.

    Raises InputError for bad data, a missed earlier step or an occupied folder; DivergedError for a loss that is no
    number; InterruptedRunError after SIGINT or SIGTERM, with a checkpoint saved.
    """
    if request.stage == 2:
        assemble.check_source(request.starts_from, request.run)
    with locked(request.run), Signals() as signals:
        old = _admit(request)
        if old is not None and old["status"] == "finished":
            return old
        return _train(request, old, signals)


def _admit(request: StageRequest) -> dict[str, Any] | None:
    """The earlier ``run.json`` to go on from, or None to start anew; InputError for a folder not to be touched."""
    run, old = request.run, read_run(request.run)
    if old is None:
        foreign = [path.name for path in run.iterdir() if not path.name.startswith(".")]
        if foreign:
            raise InputError(
                f"{run}: holds {foreign[0]} but no {RUN_FILE}, so it is no run; give another folder with -o"
            )
        return None
    if request.force:
        return None
    if request.resume:
        return old
    if old.get("status") == "finished":
        raise InputError(f"{run}: holds a finished run; give --force to train it anew, or another folder with -o")
    raise InputError(
        f"{run}: holds an unfinished run (status {old.get('status')}); --resume goes on from its last checkpoint, "
        "--force starts anew"
    )


def _train(request: StageRequest, old: dict[str, Any] | None, signals: Signals) -> dict[str, Any]:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading and saving weights: the bars of data and training say what takes time
    model, tokenizer, prepared, note = _make_ready(request)
    run, checkpoint = request.run, _begin(request, old, prepared, note)
    try:
        trainer = _trainer(request, model, prepared, signals, lambda folder: _accompany(folder, model, tokenizer, note))
        began = time.perf_counter()
        with signals.deferred():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if signals.received is not None:
            step = trainer.state.global_step
            raise InterruptedRunError(signals.received, f"{run}: stopped at step {step} and saved; go on with --resume")
        note |= {
            "steps": trainer.state.global_step,
            "loss": round(next(line["loss"] for line in reversed(trainer.state.log_history) if "loss" in line), 6),
            "seconds": round(time.perf_counter() - began, 1),
        }
        return _publish(request, trainer, tokenizer, note)
    except BaseException as error:
        status = "interrupted" if isinstance(error, InterruptedRunError) else "failed"
        with suppress(OSError):  # on a full disk the first error is the one to see
            write_run(run, note | {"status": status, "error": " ".join(str(error).split()) or type(error).__name__})
        raise


def _make_ready(request: StageRequest) -> tuple[Any, Path, Prepared, dict[str, Any]]:
    """Model, tokenizer file, checked data and the beginning of ``run.json``; nothing is written in the run folder."""
    import torch

    from parrot_train.model.trainable import set_trainable

    config = request.config
    torch.manual_seed(config.stage(request.stage).seed)
    if request.stage == 1:
        model, tokenizer, origin = assemble.from_backbones(config)
    else:
        model, tokenizer, origin = assemble.from_run(config, request.starts_from)
    set_trainable(model, request.stage)
    prepared = prepare(
        data_files(config, request.stage),
        config.data,
        tokenizer=tokenizer,
        recipe=image_recipe(model.config),
        image_tokens=model.config.image_tokens,
        fallback=request.run,
    )
    return model, tokenizer, prepared, _describe(request, model, prepared, origin)


def _begin(request: StageRequest, old: dict[str, Any] | None, prepared: Prepared, note: dict[str, Any]) -> Path | None:
    """Make the run folder this run's; the checkpoint to go on from, if it resumes and has one."""
    run, checkpoint = request.run, None
    if old is not None:
        _check_same(old, note, run)
        note["started"] = old.get("started", note["started"])
        checkpoint, faults = last_good_checkpoint(run)
        trim_log(run, checkpoint_step(checkpoint) if checkpoint else 0)
        for fault in faults:
            _say(fault)
        _say(f"{run}: goes on from {checkpoint or 'the beginning, as there is no checkpoint yet'}")
    elif request.force:
        clear_run(run)
    if prepared.report:
        write_json(run / SKIPPED_FILE, prepared.report)
    write_file(run / CONFIG_FILE, to_yaml(request.config).encode())
    write_run(run, note)
    return checkpoint


def data_files(config: TrainConfig, stage: int) -> list[Path]:
    """The LLaVA JSON files of a stage; ``nano`` stands for the nano world, which is written when it is missing."""
    files: list[Path] = []
    for name in config.files(stage):
        if name == NANO:
            files.append(nano_data(config, Path(config.data.nano_folder))[f"stage{stage}"])
        else:
            files.append(Path(name))
    for path in files:
        if files.count(path) > 1:
            raise InputError(f"{path}: is named twice among the data files; name it once")
    return files


def nano_data(config: TrainConfig, folder: Path) -> dict[str, Path]:
    """The nano world's files (stage1, stage2, heldout) in ``folder``, drawn where missing."""
    from parrot_train.nano.write import ensure_data

    return ensure_data(folder, config.nano, workers=worker_count(config.data))


def _trainer(
    request: StageRequest, model: Any, prepared: Prepared, signals: Signals, companions: Callable[[Path], None]
) -> Any:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where installed, else warns of it
    from parrot_train.attention import use_short_attention
    from parrot_train.trainer import ParrotTrainer, training_arguments

    data, stage = request.config.data, request.config.stage(request.stage)
    if stage.precision == "bf16" and not torch.cuda.is_available():
        use_short_attention(model.model.language_model)
    arguments = training_arguments(
        request.run,
        stage,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        workers=worker_count(data) if data.image_cache == "none" else 0,
    )
    return ParrotTrainer(
        model,
        arguments,
        prepared.conversations,
        run=request.run,
        stage=stage,
        stop_signal=lambda: signals.received is not None,
        companions=companions,
    )


def _describe(request: StageRequest, model: Any, prepared: Prepared, origin: dict[str, Any]) -> dict[str, Any]:
    """``run.json`` as it stands when training begins."""
    import torch

    trained = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    options = f"--config {shlex.quote(str(request.run / CONFIG_FILE))} -o DIR"
    if request.stage == 2:
        options += f" --from {shlex.quote(str(request.starts_from))}"
    names = ("parrot-edge", "torch", "transformers", "accelerate", "tokenizers", "numpy", "pillow")
    return {
        "status": "running",
        "stage": request.stage,
        "config": request.config.name,
        "started": _now(),
        "command": shlex.join(["parrot-train", *sys.argv[1:]]),
        "reproduce": f"parrot-train stage{request.stage} {options}",
        "from": origin,
        "data": prepared.sources,
        "samples": len(prepared.conversations),
        "skipped": prepared.report["skipped"] if prepared.report else 0,
        "languages": _language_counts(prepared),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_parameters": sum(trained.values()),
        "settings": to_mapping(request.config),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in names},
        "threads": torch.get_num_threads(),
    }


def _language_counts(prepared: Prepared) -> dict[str, int]:
    conversations = prepared.conversations
    return {
        code: int((conversations.languages == number).sum()) for number, code in enumerate(conversations.language_codes)
    }


def _check_same(old: dict[str, Any], new: dict[str, Any], run: Path) -> None:
    """Raise InputError unless a resumed run would go on with the settings, data and weights it began with."""
    was, now = _decisive(old), _decisive(new)
    different = [
        f"{name} was {was.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]
    if different:
        raise InputError(
            f"{run}: cannot go on with another setup: {'; '.join(different[:5])}; give the old one, or start anew "
            "with --force"
        )


def _decisive(note: dict[str, Any]) -> dict[str, Any]:
    """What decides the result of a run."""
    settings, stage = note.get("settings", {}), f"stage{note.get('stage')}"
    flat: dict[str, Any] = {}
    for section, free in (("backbones", set()), ("model", set()), ("data", _FREE_DATA), (stage, _FREE_STAGE)):
        for key, value in settings.get(section, {}).items():
            if key not in free:
                flat[f"{section}.{key}"] = value
    for source in note.get("data", []):
        flat[f"sha256 of {source['file']}"] = source["sha256"]
    flat["starting weights"] = note.get("from", {}).get("sha256")
    flat["samples"] = note.get("samples")
    return flat


def _publish(request: StageRequest, trainer: Any, tokenizer: Path, note: dict[str, Any]) -> dict[str, Any]:
    """Save the model beside, bring its files into the run folder, and only then call the run finished."""
    run = request.run
    partial = run / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    trainer.save_model(str(partial))
    (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle of this machine's settings; run.json has them
    _accompany(partial, trainer.model, tokenizer, note)
    note["files"] = publish_files(partial, run, lambda files: write_run(run, note | {"files": files}))
    note |= {"status": "finished", "finished": _now()}
    write_run(run, note)
    return note


def _accompany(folder: Path, model: Any, tokenizer: Path, note: dict[str, Any]) -> None:
    """Put beside the weights in ``folder`` what an export needs: tokenizer, recipe, and how they were trained."""
    training = {name: note[name] for name in ("stage", "config", "from", "data", "samples", "languages", "settings")}
    write_companions(folder, model.config, tokenizer, training | {"versions": note["versions"]})


def _say(line: str) -> None:
    click.echo(line, err=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
