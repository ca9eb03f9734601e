"""The transformers Trainer with what Parrot's two stages add to it.

Batches of like length in an order that seed and epoch decide, the loss on answer tokens alone and per language,
learning rates per part, checkpoints that are written beside and renamed, a stop at the first loss that is no number,
and JSON log lines. The loop, the schedule, mixed precision and distribution are the Trainer's own.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from parrot_runtime.errors import ParrotError
from parrot_runtime.prompt import IMAGE_TOKEN_ID
from parrot_train.checkpoint import CHECKPOINTS, LOG_FILE, keep_newest, last_good_checkpoint, seal_checkpoint
from parrot_train.config import StageConfig
from parrot_train.data.collator import IGNORED, Conversations, LengthBatches, RankBatches, as_batch
from parrot_train.distributed import is_lost_peer
from parrot_train.heldout import HeldOut
from parrot_train.lora import Learned
from parrot_train.reports import Progress
from parrot_train.tally import TALLY_FILE, LanguageTally
from parrot_train.workers import leave_interrupts_to_parent, loading_context

PARTS = ("vision_tower", "multi_modal_projector", "moe", "language_model")


class DivergedError(ParrotError):
    """The loss or the gradient is no number any more."""


class ParrotTrainer(Trainer):
    """Trains the parts of ``model`` that require gradients on ``conversations``; checkpoints go to ``run``.

    ``heldout`` is what ``stage.eval_steps`` asks about, ``reports`` are the callbacks that pass the log on,
    ``companions`` puts into a checkpoint's folder what else an export needs, and ``learned`` is how a model with
    adapters is kept there.
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
        heldout: HeldOut | None = None,
        reports: Sequence[TrainerCallback] = (),
        companions: Callable[[Path], None] = lambda _folder: None,
        learned: Learned | None = None,
    ) -> None:
        self.run_folder, self.stage, self._companions, self._learned = run, stage, companions, learned
        self._heldout = heldout
        super().__init__(
            model,
            args,
            data_collator=as_batch,
            train_dataset=conversations,
            eval_dataset=heldout.conversations if heldout else None,
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        for callback in (Progress(run / LOG_FILE, stop_signal), *reports):
            self.add_callback(callback)
        self._tally = LanguageTally(conversations.language_codes, model.config.num_experts, args.device)

    def train(self, resume_from_checkpoint: str | None = None) -> TrainOutput:
        """The Trainer's, with the counts of the checkpoint that it goes on from."""
        if resume_from_checkpoint:
            self._tally.restore(Path(resume_from_checkpoint), main=self.is_world_process_zero())
        return super().train(resume_from_checkpoint=resume_from_checkpoint)

    def get_train_dataloader(self) -> DataLoader:
        """This rank's batches of like length."""
        conversations = self.train_dataset
        batches = LengthBatches(
            conversations.lengths, self.args.per_device_train_batch_size, seed=self.args.seed, epoch=self._current_epoch
        )
        if self.args.world_size > 1:
            batches = RankBatches(batches, self.args.process_index, self.args.world_size)
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
        # Moves batches to the device; the ranks' shares are RankBatches', which repeats no sample.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

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

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """The Trainer's, unless all steps are done: it asks after a step only, and would make one more of a run that
        was cut between its last checkpoint and its end."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **named)

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
        conversations = self.train_dataset
        self._tally.add(
            languages=languages,
            answers=answers,
            losses=losses.detach(),
            lengths=torch.from_numpy(conversations.lengths[samples.cpu().numpy()]),
            images=(inputs["input_ids"] == IMAGE_TOKEN_ID).sum(dim=1) // conversations.image_tokens,
            routing=outputs.routing,
        )
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

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Ask the held-out questions, log what came out, and leave the model as it was. The Trainer calls it."""
        began = time.perf_counter()
        model, tower = self.model_wrapped, self.accelerator.unwrap_model(self.model_wrapped).model.vision_tower
        was_training, tower_was = model.training, tower.training
        model.eval()
        measured = self._heldout.measure(
            model,
            self._total,
            device=self.args.device,
            batch_size=self.stage.micro_batch,
            rank=self.args.process_index,
            ranks=self.args.world_size,
        )
        model.train(was_training)
        tower.train(tower_was)
        seconds = time.perf_counter() - began
        self._tally.pause(seconds)
        self.log(measured | {"eval_seconds": round(seconds, 3)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return measured

    def _total(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(numbers, "sum")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was counted since the last line, and the speed.

        The Trainer's own loss is the mean of the steps' means, and of a resumed run's only those since then.
        """
        if "loss" in logs:
            logs |= self._tally.line(self._total)
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """The Trainer's, without a copy of tied word embeddings, which DeepSpeed's gathered weights have twice.

        Of a model with adapters, what learns alone.
        """
        if self._learned:
            return self._learned.save(self.model, Path(output_dir))
        if state_dict and self.model.config.tie_word_embeddings:
            state_dict.pop("lm_head.weight", None)
        return super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._learned:
            return self._learned.restore(self.model, Path(resume_from_checkpoint))
        return super()._load_from_checkpoint(resume_from_checkpoint, model)

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
            tally = self._tally.state(self._total)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                name = f"checkpoint-{self.state.global_step}"
                (partial / name / TALLY_FILE).write_text(json.dumps(tally), encoding="utf-8")
                self._companions(partial / name)
                seal_checkpoint(partial / name, folder / name)
                keep_newest(self.run_folder, self.stage.keep_checkpoints, self.state.global_step)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors each wrap a full disk
            if is_lost_peer(error):
                raise
            shutil.rmtree(partial, ignore_errors=True)
            raise ParrotError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder} "
                f"({' '.join(str(error).split())}); {self._kept()}; make room and go on with --resume"
            ) from error
        finally:
            self.args.output_dir = final


def part_of(name: str) -> str:
    """Which of PARTS a parameter belongs to; the output layer counts to the language model."""
    pieces = name.split(".")
    return next((part for part in PARTS if part in pieces), "language_model")
