"""The transformers Trainer with what Parrot's two stages add to it.

Batches of like length in an order that seed and epoch decide, the loss on answer tokens alone and per language,
learning rates per part, checkpoints that are written beside and renamed, a stop at the first loss that is no number,
and JSON log lines. The loop, the schedule, mixed precision and distribution are the Trainer's own.
"""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from parrot_runtime.errors import InputError, ParrotError
from parrot_train.checkpoint import CHECKPOINTS, LOG_FILE, keep_newest, last_good_checkpoint, seal_checkpoint
from parrot_train.config import StageConfig
from parrot_train.data.collator import IGNORED, Conversations, LengthBatches, as_batch
from parrot_train.workers import leave_interrupts_to_parent, loading_context

PARTS = ("vision_tower", "multi_modal_projector", "moe", "language_model")


class DivergedError(ParrotError):
    """The loss or the gradient is no number any more."""


def training_arguments(run: Path, stage: StageConfig, *, world_size: int, workers: int) -> TrainingArguments:
    """The stage's settings in the Trainer's words. Raises InputError for a batch that does not divide over devices."""
    per_step = stage.micro_batch * world_size
    if stage.global_batch % per_step:
        raise InputError(
            f"global_batch {stage.global_batch} is no multiple of micro_batch {stage.micro_batch} times {world_size} "
            "devices; change one of the two"
        )
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(run / CHECKPOINTS),
        per_device_train_batch_size=stage.micro_batch,
        gradient_accumulation_steps=stage.global_batch // per_step,
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


def _recompute(wanted: bool) -> dict[str, Any]:
    """Gradient checkpointing, under the name that the installed transformers has for it."""
    if not wanted:
        return {}
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


class ParrotTrainer(Trainer):
    """Trains the parts of ``model`` that require gradients on ``conversations``; checkpoints go to ``run``.

    ``companions`` puts into a checkpoint's folder what else an export needs.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        conversations: Conversations,
        *,
        run: Path,
        stage: StageConfig,
        stop_signal: Callable[[], bool],
        companions: Callable[[Path], None] = lambda _folder: None,
    ) -> None:
        self.run_folder, self.stage, self._companions = run, stage, companions
        super().__init__(model, args, data_collator=as_batch, train_dataset=conversations)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_Progress(run / LOG_FILE, stop_signal))
        languages = len(conversations.language_codes)
        # Since the last log line: sum of losses and answer tokens per language; tokens of all kinds but padding.
        self._language_loss = torch.zeros(2, languages, dtype=torch.float64, device=args.device)
        self._tokens, self._since = 0, time.perf_counter()

    def get_train_dataloader(self) -> DataLoader:
        """Batches of like length; distributed over the ranks by accelerate."""
        conversations = self.train_dataset
        batches = LengthBatches(
            conversations.lengths, self.args.per_device_train_batch_size, seed=self.args.seed, epoch=self._current_epoch
        )
        workers = self.args.dataloader_num_workers
        loader = DataLoader(
            conversations,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=workers > 0,
            multiprocessing_context=loading_context() if workers else None,
            worker_init_fn=leave_interrupts_to_parent,
        )
        return self.accelerator.prepare(loader)

    def _current_epoch(self) -> int:
        per_epoch = self.args.world_size * self.args.gradient_accumulation_steps * self.args.per_device_train_batch_size
        return self.state.global_step // -(-len(self.train_dataset) // per_epoch)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with one group per learning rate and kind of parameter: biases and norms are not decayed."""
        model = self.model if model is None else model
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(model))
            rates = self.stage.part_rates()
            groups: dict[tuple[float, float], list[nn.Parameter]] = {}
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    rate = rates.get(part_of(name), self.stage.learning_rate)
                    decay = self.stage.weight_decay if name in decayed else 0.0
                    groups.setdefault((rate, decay), []).append(parameter)
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = kind(
                [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()],
                **settings,
            )
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """None counted: the Trainer's estimate walks all modules at every step, which costs more than it tells."""
        return 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Mean cross entropy over the answer tokens of the optimiser step; sums per language are kept for the log."""
        inputs = dict(inputs)
        languages = inputs.pop("languages")
        samples = inputs.pop("samples")
        targets = inputs["labels"][:, 1:]
        answers = targets != IGNORED
        self.accelerator.unwrap_model(model).model.vision_tower.eval()  # frozen, dropout included
        outputs = model(**inputs, answers_only=True)
        losses = nn.functional.cross_entropy(outputs.logits.float(), targets[answers], reduction="none")
        with torch.no_grad():
            where = languages[:, None].expand_as(targets)[answers]
            self._language_loss.index_add_(1, where, torch.stack([losses, torch.ones_like(losses)]).double())
            self._tokens += int(self.train_dataset.lengths[samples.cpu().numpy()].sum())
        loss = losses.sum() / (max(len(losses), 1) if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # num_items_in_batch counts all ranks, whose gradients are averaged, not added.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One micro-batch forward and backward. Raises DivergedError when its loss is no number."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            rows = [self.train_dataset.describe(int(sample)) for sample in inputs["samples"][:3]]
            self._stop_diverged("the loss", loss, f"on a batch that starts with {', '.join(rows)}")
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if not torch.isfinite(torch.as_tensor(norm)):
            self._stop_diverged("the gradient norm", norm, "")
        return norm

    def _stop_diverged(self, what: str, value: Any, where: str) -> None:
        raise DivergedError(
            f"{what} became {float(value)} at step {self.state.global_step + 1} {where}".rstrip()
            + f"; {self._kept()}; --resume goes on from there; if it happens again, train anew with a lower rate"
        )

    def _kept(self) -> str:
        good, _ = last_good_checkpoint(self.run_folder)
        return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the loss per language and the speed since the last line."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._language_loss, "sum")
            for code, total, count in zip(self.train_dataset.language_codes, *sums.tolist(), strict=True):
                if count:
                    logs[f"loss_{code}"] = total / count
            now = time.perf_counter()
            logs["tokens_per_second"] = self._tokens * self.accelerator.num_processes / (now - self._since)
            self._language_loss.zero_()
            self._tokens, self._since = 0, now
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's checkpoint, written beside, hashed, and renamed; a crash leaves the older ones alone."""
        folder = self.run_folder / CHECKPOINTS
        partial = folder / f".checkpoint-{self.state.global_step}.partial"
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        # The Trainer names the folder inside its output directory itself, so the beside is a directory around it.
        final, self.args.output_dir = self.args.output_dir, str(partial)
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                name = f"checkpoint-{self.state.global_step}"
                self._companions(partial / name)
                seal_checkpoint(partial / name, folder / name)
                keep_newest(self.run_folder, self.stage.keep_checkpoints)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors each wrap a full disk
            shutil.rmtree(partial, ignore_errors=True)
            raise ParrotError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder} "
                f"({' '.join(str(error).split())}); {self._kept()}; make room and go on with --resume"
            ) from error
        finally:
            self.args.output_dir = final


class _Progress(TrainerCallback):
    """A progress bar on a terminal, JSON lines in the run's log, and a clean stop when a signal asked for one."""

    def __init__(self, log: Path, stop_signal: Callable[[], bool]) -> None:
        self._log, self._stop_signal = log, stop_signal
        self._bar: tqdm | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(1)
        if state.global_step >= state.max_steps:
            control.should_log = True  # however few the steps, a run has a last loss
        if self._stop_signal():
            control.should_save = control.should_training_stop = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict, **_: Any
    ) -> None:
        if not state.is_world_process_zero or "loss" not in logs:
            return
        line = {"step": state.global_step, "steps": state.max_steps, **logs}
        line = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + os.linesep)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", tokens=f"{logs['tokens_per_second']:.0f}/s")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def part_of(name: str) -> str:
    """Which of PARTS a parameter belongs to; the output layer counts to the language model."""
    pieces = name.split(".")
    return next((part for part in PARTS if part in pieces), "language_model")
