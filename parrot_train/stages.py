"""The two stages, and the extension of their result, each from a configuration to a finished run folder.

Stage 1 (modality alignment) trains the projector alone, on a LLaVA-form model: there is no mixture to bypass. Stage 2
(multilingual instruction tuning) starts from stage 1's result, adds a mixture of randomly initialised experts, and
trains projector, mixture and language model. The vision encoder is frozen in both. An extension starts from stage 2's
result, adds experts for further languages, and trains these alone.
"""

import logging
import os
import shutil
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
from safetensors import SafetensorError

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.publish import write_file
from parrot_train import assemble, extension, start
from parrot_train.checkpoint import (
    CONFIG_FILE,
    RUN_FILE,
    SKIPPED_FILE,
    checkpoint_step,
    checkpoints,
    clear_run,
    last_good_checkpoint,
    locked,
    publish_files,
    read_run,
    trim_log,
    write_json,
    write_run,
)
from parrot_train.config import EXTEND, section_of
from parrot_train.config_files import to_mapping, to_yaml
from parrot_train.distributed import Failure, Ranks, is_lost_peer, joined
from parrot_train.lora import check_lora, merged_bytes
from parrot_train.provenance import check_same
from parrot_train.ready import Ready, StageRequest, make_ready, now
from parrot_train.recipe import write_companions
from parrot_train.signals import InterruptedRunError, Signals
from parrot_train.workers import loading_errors

_QUICK_BYTES = 1 << 28
"""What is merged in less than two seconds shows no progress."""


def run_stage(request: StageRequest) -> dict[str, Any] | None:
    """Train one stage and return its ``run.json``; None in the ranks of a launched run that are not the main process.

    Raises InputError for bad data, a missed earlier step or an occupied folder; DivergedError for a loss that is no
    number; InterruptedRunError after SIGINT or SIGTERM, with a checkpoint saved.
    """
    with joined() as ranks, ExitStack() as main_only, Signals(launched=ranks.launched) as signals:

        def admit() -> dict[str, Any] | None:
            check_lora(request.config.stage(request.stage), launched=ranks.launched)
            if request.stage == 2:
                assemble.check_source(request.config, request.starts_from, request.run)
            elif request.stage == EXTEND:
                extension.check(request.config, request.starts_from, request.run)
            main_only.enter_context(locked(request.run))
            return _admit(request)

        old = ranks.from_main(admit)
        done = old is not None and old.get("status") == "finished"
        note = old if done else _train(request, old, ranks, signals, main_only)
    return note if ranks.main else None


def _admit(request: StageRequest) -> dict[str, Any] | None:
    """The earlier ``run.json`` to go on from, or None to start anew; InputError for a folder not to be touched."""
    run = request.run
    try:
        old = read_run(run)
    except InputError:
        if not request.force:
            raise
        return None  # what it says is void, as it is to be
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
        if old.get("stage", request.stage) != request.stage:
            raise InputError(f"{run}: holds stage {old['stage']}, not {request.stage}; give another folder with -o")
        # Of an unfinished run data and weights are compared too, once they are read.
        check_same(old, old | {"stage": request.stage, "settings": to_mapping(request.config)}, run)
        return old
    if old.get("status") == "finished":
        raise InputError(f"{run}: holds a finished run; give --force to train it anew, or another folder with -o")
    raise InputError(
        f"{run}: holds an unfinished run (status {old.get('status')}); --resume goes on from its last checkpoint, "
        "--force starts anew"
    )


def _train(
    request: StageRequest, old: dict[str, Any] | None, ranks: Ranks, signals: Signals, held: ExitStack
) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, which transformers imports where it is, else warns
    # transformers imports it where it is, and on a CPU it warns that it lacks a kernel which is not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading and saving weights: the bars of data and training say what takes time
    ready = make_ready(request, ranks, held)
    note, run = ready.note, request.run
    if not ranks.launched and (idle := torch.cuda.device_count() - 1) > 0:
        _say(f"one GPU is used and {idle} more are not; a launcher uses all (docs/training.md)")
    checkpoint = ranks.from_main(lambda: _begin(request, old, ready))

    def failed(failure: Failure, status: str = "failed") -> None:
        if ranks.main:
            with suppress(OSError):  # on a full disk the first error is the one to see
                write_run(run, note | {"status": status, "error": failure.message})

    ranks.when_lost(failed)
    try:
        began = time.perf_counter()
        with _reports(request, note, checkpoint, ranks) as reports, signals.deferred(), loading_errors():
            trainer = _trainer(request, ready, ranks, signals, reports)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if received := ranks.greatest(signals.received or 0):
            step = trainer.state.global_step
            raise InterruptedRunError(received, f"{run}: stopped at step {step} and saved; go on with --resume")
        note |= {"steps": trainer.state.global_step, "seconds": round(time.perf_counter() - began, 1)}
        note |= _last_numbers(trainer.state.log_history)
        return _publish(request, trainer, ready, ranks)
    except BaseException as error:
        signals.settle()
        failed(ranks.failure(error), "interrupted" if isinstance(error, InterruptedRunError) else "failed")
        raise


def _reports(request: StageRequest, note: dict[str, Any], checkpoint: Path | None, ranks: Ranks) -> Any:
    """The callbacks that pass the log on, to be entered; none but in the main process."""
    from parrot_train.reports import opened_reports

    return opened_reports(
        request.config.stage(request.stage) if ranks.main else None,
        request.run,
        name=f"{request.config.name}-{section_of(request.stage)}",
        settings=note,
        after=checkpoint_step(checkpoint) if checkpoint else 0,
    )


def _last_numbers(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The last loss of a run, and what its last evaluation said where it had one."""
    measured = next((line for line in reversed(history) if "eval_loss" in line), {})
    evaluation = {name: round(value, 6) for name, value in measured.items() if name.startswith("eval_")}
    loss = next(line["loss"] for line in reversed(history) if "loss" in line)
    return {"loss": round(loss, 6)} | ({"evaluation": evaluation} if evaluation else {})


def _begin(request: StageRequest, old: dict[str, Any] | None, ready: Ready) -> Path | None:
    """Make the run folder this run's; the checkpoint to go on from, if it resumes and has one."""
    run, note, checkpoint = request.run, ready.note, None
    if old is not None:
        check_same(old, note, run)
        note["started"] = old.get("started", note["started"])
        checkpoint, faults = last_good_checkpoint(run)
        if faults and checkpoint is None:
            raise InputError(
                f"{run}: no checkpoint of this run is whole, the newest is {checkpoints(run)[0].name}; bring one back, "
                "or start anew with --force"
            )
        trim_log(run, checkpoint_step(checkpoint) if checkpoint else 0)
        for fault in faults:
            _say(fault)
        _say(f"{run}: goes on from {checkpoint or 'the beginning, as there is no checkpoint yet'}")
    elif request.force:
        clear_run(run)
    write_run(run, note)  # the first of its files: by it a folder is known as a run, one that was killed here too
    write_file(run / CONFIG_FILE, to_yaml(request.config).encode())
    if ready.prepared.report:
        write_json(run / SKIPPED_FILE, ready.prepared.report)
        _say(f"{ready.prepared.report['skipped']} records cannot be used and are left out: {run / SKIPPED_FILE}")
    return checkpoint


def _trainer(request: StageRequest, ready: Ready, ranks: Ranks, signals: Signals, reports: list[Any]) -> Any:
    import torch

    from parrot_train.attention import use_short_attention
    from parrot_train.trainer import ParrotTrainer

    stage, model = request.config.stage(request.stage), ready.model
    if stage.precision == "bf16" and not torch.cuda.is_available():
        use_short_attention(model.model.language_model)
    return ParrotTrainer(
        model,
        ready.arguments,
        ready.prepared.conversations,
        run=request.run,
        stage=stage,
        stop_signal=lambda: ranks.greatest(signals.received or 0) > 0,
        heldout=ready.heldout,
        reports=reports,
        companions=lambda folder: _accompany(folder, ready),
        learned=ready.learned,
    )


def _publish(request: StageRequest, trainer: Any, ready: Ready, ranks: Ranks) -> dict[str, Any]:
    """Save the model beside, bring its files into the run folder, and only then call the run finished."""
    run, note = request.run, ready.note
    partial = run / ".model.partial"
    ranks.from_main(lambda: shutil.rmtree(partial, ignore_errors=True))
    try:
        if ready.learned:
            _merge(ready, partial)
        else:
            trainer.save_model(str(partial))  # all ranks: under ZeRO 3 each has a share
        if ranks.main:
            extension.check_kept(partial, ready.kept)
            (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle of this machine's settings
            _accompany(partial, ready)
            note["files"] = publish_files(partial, run, lambda files: write_run(run, note | {"files": files}))
            note |= {"status": "finished", "finished": now()}
            write_run(run, note)
            start.clear(run)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors each wrap a full disk
        if is_lost_peer(error):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        raise ParrotError(
            f"{run}: the model cannot be written ({' '.join(str(error).split())}); make room and go on with --resume"
        ) from error
    return note


def _merge(ready: Ready, folder: Path) -> None:
    total = merged_bytes(ready.model.config)
    hidden = total < _QUICK_BYTES or not sys.stderr.isatty()
    with click.progressbar(length=total, label="Merging adapters", file=sys.stderr, hidden=hidden) as bar:
        ready.learned.publish(ready.model, folder, bar.update)


def _accompany(folder: Path, ready: Ready) -> None:
    """Put beside the weights in ``folder`` what an export needs: tokenizer, recipe, and how they were trained."""
    names = ("stage", "config", "from", "data", "samples", "languages", "settings")
    training = {name: ready.note[name] for name in names} | {"versions": ready.note["versions"]}
    write_companions(folder, ready.model.config, ready.tokenizer, training)


def _say(line: str) -> None:
    click.echo(line, err=True)
