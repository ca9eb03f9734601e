"""Where a run's numbers go: the progress bar, ``log.jsonl``, and where asked for TensorBoard and Weights & Biases."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from parrot_runtime.errors import InputError
from parrot_train.checkpoint import TENSORBOARD
from parrot_train.config import StageConfig


def check_reports(stage: StageConfig, where: str) -> None:
    """Raise InputError for a name in ``report_to`` whose package is not installed; ``where`` is the stage's section."""
    for name in stage.report_to:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"{where}.report_to names {name}, which is not installed; pip install 'parrot-edge[{name}]', or "
                f"--set {where}.report_to=[]"
            )


@contextmanager
def opened_reports(
    stage: StageConfig | None, run: Path, *, name: str, settings: dict[str, Any], after: int
) -> Iterator[list[TrainerCallback]]:
    """The Trainer's callbacks for ``stage.report_to``; what they opened is closed at the end. None without a ``stage``,
    as in the ranks that are not the main one.

    Both get the numbers of ``log.jsonl`` under the same names, behind ``train/`` and ``eval/``. TensorBoard's files lie
    in RUN/tensorboard; what an earlier attempt wrote there of steps ``after`` which this one starts is hidden. Weights
    & Biases writes to RUN/wandb and, unless WANDB_MODE says otherwise, sends nothing: ``wandb sync`` does that later.
    """
    with ExitStack() as opened:
        callbacks: list[TrainerCallback] = []
        wanted = stage.report_to if stage else ()
        if "tensorboard" in wanted:
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            writer = SummaryWriter(log_dir=str(run / TENSORBOARD), purge_step=after + 1)
            opened.callback(writer.close)
            callbacks.append(TensorBoardCallback(writer))
        if "wandb" in wanted:
            import wandb
            from transformers.integrations import WandbCallback

            session = wandb.init(  # the callback takes the session that is there
                project=os.environ.get("WANDB_PROJECT", "parrot"),
                name=name,
                dir=str(run),
                mode=os.environ.get("WANDB_MODE", "offline"),
                config=settings,
            )
            opened.callback(session.finish)
            callbacks.append(WandbCallback())
        yield callbacks


class Progress(TrainerCallback):
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
        measured = "loss" in logs or any(name.startswith("eval_") for name in logs)
        if not state.is_world_process_zero or not measured:  # the Trainer's last words are run.json's to say
            return
        line = {"step": state.global_step, "steps": state.max_steps, **logs}
        line = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + os.linesep)
        if self._bar is not None and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", tokens=f"{logs['tokens_per_second']:.0f}/s")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
