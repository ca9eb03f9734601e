"""Whether training survives being killed: bit for bit, at every save point and at random moments.

    python benchmarks/kills.py --single 200 --ranks 20 --control 20

trains nano's stage 2 for a few steps, once without interruption, and then as often as asked: starts it, sends SIGKILL,
resumes it, and compares the finished weights with the uninterrupted run's. ``single`` is one process: the first kills
come while each checkpoint in turn is being written, the others at random moments of the run. ``ranks`` is two ranks
under torchrun with DeepSpeed: in turn one rank, the other, and all with their launcher. ``control`` is ``single`` with
a writer as one would write it first, straight into the checkpoint's folder and believed afterwards: if none of its
runs were lost, the test would show nothing. Prints one line per mode; exit code 1 for a run that was lost, or a
control that lost none.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from parrot_runtime.command import ParrotCommand

STEPS = 6
SETTINGS = [
    "nano.stage1_scenes=64",
    "nano.stage2_scenes=64",
    "nano.heldout_scenes=8",
    "data.workers=0",
    "stage1.max_steps=2",
    f"stage2.max_steps={STEPS}",
    "stage2.save_steps=1",
    "stage2.global_batch=4",
    "stage2.micro_batch=2",
]
FIRST = Path("stage1")
_POLL = 0.002


@dataclass(frozen=True)
class Run:
    """A training that was started: its processes, by what is to be killed, and how to wait for its exit code."""

    folder: Path
    victims: Callable[[], list[int]]
    poll: Callable[[], int | None]

    def end(self, seconds: float = 600) -> int:
        """The exit code, once there is one."""
        limit = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > limit:
                sys.exit(f"{self.folder}: has not ended for {seconds:.0f} s")
            time.sleep(_POLL)
        return code

    def kill(self) -> bool:
        """SIGKILL to the victims; False when the run was over before."""
        alive = self.poll() is None
        for victim in self.victims() if alive else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        return alive


def forked(folder: Path, stage: int, *, resume: bool, naive: bool = False) -> Run:
    """Train in a fork of this process, which has imported all that takes long, and run nothing."""
    child = os.fork()
    if child == 0:
        _train(folder, stage, resume, naive)
    codes: list[int] = []

    def poll() -> int | None:
        if not codes:
            done, status = os.waitpid(child, os.WNOHANG)
            codes.extend([os.waitstatus_to_exitcode(status)] if done else [])
        return codes[0] if codes else None

    return Run(folder, lambda: [child], poll)


def _train(folder: Path, stage: int, resume: bool, naive: bool) -> None:
    from parrot_train.config_files import load_config
    from parrot_train.stages import StageRequest, run_stage

    code = 1
    try:
        with open(f"{folder}.log", "a", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if naive:
            _write_naively()
        run_stage(StageRequest(stage, load_config("nano", SETTINGS), output=folder, source=FIRST, resume=resume))
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)  # what stands above this call is the parent's


def _write_naively() -> None:
    """Checkpoints written where they are looked for, and taken for whole: the control."""
    from transformers import Trainer

    from parrot_train import checkpoint, stages, trainer

    def save(self: trainer.ParrotTrainer, model: object, trial: object) -> None:
        Trainer._save_checkpoint(self, model, trial)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / trainer.TALLY_FILE).write_text(json.dumps(self._tally.state(self._total)), encoding="utf-8")

    trainer.ParrotTrainer._save_checkpoint = save
    stages.last_good_checkpoint = lambda run: (next(iter(checkpoint.checkpoints(run)), None), [])


def launched(folder: Path, stage: int, *, resume: bool, victim: str = "all") -> Run:
    """Train on two ranks under torchrun; ``victim`` is rank 0, rank 1, or all with the launcher."""
    import psutil

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "parrot_train", f"stage{stage}", "-o", folder, *(["--resume"] if resume else [])]
    command += ["--from", FIRST] if stage == 2 else []
    for setting in SETTINGS:
        command += ["--set", setting]
    with open(f"{folder}.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)

    def victims() -> list[int]:
        found = [] if victim != "all" else [process.pid]
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if victim == "all" or child.environ().get("RANK") == victim:
                    found.append(child.pid)
        return found

    return Run(folder, victims, process.poll)


def moments(count: int, length: float, chance: random.Random) -> Iterator[tuple[int | None, float]]:
    """When to kill: while checkpoint N is written, for every N, then so many seconds after the start."""
    for number in range(count):
        yield (number + 1, chance.uniform(0, 0.1)) if number < STEPS else (None, chance.uniform(0, length))


def survive(run: Run, resume: Callable[[], Run], point: int | None, delay: float) -> tuple[bool, bool, float]:
    """Kill ``run`` then, and resume it: whether it was hit at all, whether while a checkpoint was written, and how many
    seconds what was left of it lived on."""
    checkpoints = run.folder / "checkpoints"
    writing = (f".checkpoint-{point}.partial", f"checkpoint-{point}")
    while point and run.poll() is None and not any((checkpoints / name).exists() for name in writing):
        time.sleep(_POLL)
    limit = time.monotonic() + delay
    while run.poll() is None and time.monotonic() < limit:
        time.sleep(_POLL)
    hit, since = run.kill(), time.monotonic()
    run.end()
    lived_on = time.monotonic() - since
    # The control's have their names from the beginning; the Trainer's own state is what it writes last.
    half = [path for path in checkpoints.glob("checkpoint-*") if not (path / "trainer_state.json").exists()]
    within = hit and any((*checkpoints.glob(".checkpoint-*.partial"), *half))
    if hit:
        resume().end()
    return hit, within, lived_on


def measure(mode: str, count: int, seed: int) -> int:
    """Kill ``count`` runs of one mode; how many were lost. Prints the line."""
    chance = random.Random(f"{mode}/{seed}")
    start = launched if mode == "ranks" else forked
    extra = {"naive": True} if mode == "control" else {}
    began = time.monotonic()
    if start(Path(mode), 2, resume=False, **extra).end():
        sys.exit(f"the uninterrupted run failed; see {mode}.log")
    length, expected = time.monotonic() - began, weights(Path(mode))
    lost, within, missed, longest, seconds = [], 0, 0, 0.0, []
    for number, (point, delay) in enumerate(moments(count, length, chance)):
        folder = Path(f"{mode}-{number}")
        hit = False
        while not hit:  # one that was quicker than its killer is run again
            shutil.rmtree(folder, ignore_errors=True)
            victim = {"victim": ("0", "1", "all")[number % 3]} if mode == "ranks" else {}
            since = time.monotonic()
            hit, writing, lived_on = survive(
                start(folder, 2, resume=False, **extra, **victim),
                lambda folder=folder: start(folder, 2, resume=True, **extra),
                point,
                delay,
            )
            missed, delay, longest = missed + (not hit), delay * 0.8, max(longest, lived_on)
            seconds.append(time.monotonic() - since)
        within += writing
        if weights(folder) == expected:
            shutil.rmtree(folder)
            Path(f"{folder}.log").unlink()
        else:
            lost.append(folder)
    click.echo(
        f"{mode}: {count} kills, {count - len(lost)} of {count} runs ended with the bits of the uninterrupted one; "
        f"{min(count, STEPS)} at save points, {within} left a checkpoint half written, {missed} came too late and were "
        f"repeated; what was left of a run ended within {longest:.1f} s; {sum(seconds) / max(count, 1):.1f} s per kill"
        + (f"; lost: {', '.join(map(str, lost[:5]))}" if lost else "")
    )
    return len(lost)


def weights(folder: Path) -> bytes | None:
    """The finished model's bytes; None where there is none."""
    path = folder / "model.safetensors"
    return path.read_bytes() if path.is_file() else None


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
@click.option("--single", default=20, show_default=True, help="Kills of one process.")
@click.option("--ranks", default=5, show_default=True, help="Kills of two ranks with DeepSpeed.")
@click.option("--control", default=10, show_default=True, help="Kills of one process with a naive writer.")
@click.option("--seed", default=0, show_default=True, help="Decides the moments.")
@click.option("--folder", type=click.Path(path_type=Path), default="runs/kills", show_default=True, help="Where.")
def main(single: int, ranks: int, control: int, seed: int, folder: Path) -> None:
    """Measure and print."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    from parrot_train import stages, trainer  # noqa: F401  what every fork needs

    if forked(FIRST, 1, resume=False).end():
        sys.exit(f"stage 1 failed; see {folder / FIRST}.log")
    failed = False
    for mode, count in (("single", single), ("ranks", ranks), ("control", control)):
        if count:
            lost = measure(mode, count, seed)
            failed |= lost == 0 if mode == "control" else lost > 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
