"""Runs the study's jobs, as many at a time as there are cores, each on one thread, and says how far it is."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parrot_benchmarks.paper.backbones import SIZES, TEXT_STEPS
from parrot_benchmarks.paper.study import CAPTION_PASSES, QUESTIONS, Job, Study, conversations, output, sharing
from parrot_benchmarks.paper.variants import VARIANTS
from parrot_runtime.errors import ParrotError

# Seconds on one core of an Intel Xeon, from runs beside other work and so rather too much: a picture drawn, a caption
# and a conversation learnt, a question answered, an encoder, a step of the large language model, a process started.
DRAWN, CAPTION, CONVERSATION, QUESTION, ENCODER, LLM_STEP, START = 0.009, 0.025, 0.065, 0.025, 1_620.0, 0.4, 6.0

Note = Callable[[str], None]


def cost(study: Study, job: Job) -> float:
    """Seconds that ``job`` takes on one idle core, roughly; `run` corrects it by what it sees."""
    if job.kind == "questions":
        return START + DRAWN * QUESTIONS
    if job.kind == "data":
        code, _, number = job.what.partition("-")
        return START + DRAWN * (study.count(code, int(number)) if number else study.captions)
    if job.kind == "encoder":
        return ENCODER
    if job.kind == "llm":
        width, layers = SIZES[job.what]
        return LLM_STEP * TEXT_STEPS * (0.3 + 0.7 * width * layers / (256 * 5))
    if job.kind == "stage1":
        return START + CAPTION * CAPTION_PASSES * study.captions
    variants = [VARIANTS[name] for name in job.what.split("+")]
    asked = 6 * min(study.questions, QUESTIONS) * len(variants)
    return 2 * START + CONVERSATION * conversations(study, variants[0]) + QUESTION * asked


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    began: float


def run(study: Study, waiting: Sequence[Job], *, workers: int, note: Note) -> None:
    """Do ``waiting``, jobs in an order that has those they need before them.

    A job that fails is told and keeps only those from running that need it; at the end they are a ParrotError. SIGINT
    and SIGTERM stop the jobs, which save what they have, and raise KeyboardInterrupt.
    """
    left, undone, running, failed = list(waiting), list(waiting), [], []
    total, spent, expected, began = len(left), 0.0, 0.0, time.monotonic()
    with _alone(study, note) as lock, _stopping(running):
        _remove_leftovers(study)
        while left or running:
            unfinished = {job.name for job in (*left, *(each.job for each in running))}
            ready = [job for job in left if unfinished.isdisjoint(need.name for need in job.needs)]
            for job in ready[: workers - len(running)]:
                left.remove(job)
                running.append(_start(study, job, lock))
            time.sleep(0.2)
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                took = time.monotonic() - each.began
                if each.process.returncode:
                    failed.append(each.job)
                    note(f"{each.job.name}: failed; {_last_line(study, each.job)}")
                    left = [job for job in left if not _needs(job, each.job)]
                    continue
                spent, expected = spent + took, expected + cost(study, each.job)
                undone.remove(each.job)
                _sweep(study, each.job, undone)
                pace = spent / expected
                rest = sum(cost(study, job) for job in left) + sum(cost(study, other.job) / 2 for other in running)
                number = total - len(left) - len(running)
                note(f"[{number}/{total}] {each.job.name}: {_time(took)}; {_time(rest * pace / workers)} left")
    if failed:
        names = ", ".join(job.name for job in failed)
        raise ParrotError(f"{names}: failed; see {study.work}/logs, and run the same command again")
    note(f"all done in {_time(time.monotonic() - began)}")


def _needs(job: Job, other: Job) -> bool:
    return any(need == other or _needs(need, other) for need in job.needs)


@contextmanager
def _alone(study: Study, note: Note) -> Iterator[int]:
    """Own the study's folder; the descriptor of the lock, which jobs inherit.

    So a study that is started again at once waits until the jobs of a killed runner have saved what they had.
    """
    study.work.mkdir(parents=True, exist_ok=True)
    with (study.work / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"{study.folder}: another run is at work there, or ending; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _start(study: Study, job: Job, lock: int) -> _Running:
    log = _log(study, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "parrot_benchmarks.paper.job", str(study.folder), job.name]
    with log.open("ab") as file:
        # A session of its own: Ctrl-C reaches the runner alone, which passes it on once.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=os.environ | threads,
            start_new_session=True,
            pass_fds=(lock,),
        )
    return _Running(job, process, time.monotonic())


def _log(study: Study, job: Job) -> Path:
    return study.work / "logs" / f"{job.name.replace('/', '-')[:120]}.log"


def _last_line(study: Study, job: Job) -> str:
    lines = _log(study, job).read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _remove_leftovers(study: Study) -> None:
    """Remove the weights of a stage 2 that was killed after the last result of those that share it was kept."""
    for folder in study.work.glob("stage2-*"):
        first, _, seed = folder.name.removeprefix("stage2-").rpartition("-")
        if first in VARIANTS and all(study.result(name, int(seed)).is_file() for name in sharing(first)):
            shutil.rmtree(folder)


def _sweep(study: Study, finished_job: Job, undone: Sequence[Job]) -> None:
    """Remove the stage 1 of a job, once nothing needs it any more: a job that failed needs it the next time."""
    for need in finished_job.needs:
        if need.kind == "stage1" and not any(need in job.needs for job in undone):
            shutil.rmtree(output(study, need), ignore_errors=True)


@contextmanager
def _stopping(running: list[_Running]) -> Iterator[None]:
    """Inside, a signal is a KeyboardInterrupt; however it ends, no job is left running."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each in running:
            each.process.terminate()
        for each in running:
            each.process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def plan(study: Study, waiting: Sequence[Job], *, workers: int) -> list[str]:
    """Lines that say what would be done, and how long it takes."""
    total = sum(cost(study, job) for job in waiting)
    kinds: dict[str, list[Job]] = {}
    for job in waiting:
        kinds.setdefault(job.kind, []).append(job)
    lines = [f"scale {study.scale:g}, {min(study.questions, QUESTIONS)} questions in each of six languages"]
    for kind, group in kinds.items():
        lines.append(f"{kind:<10} {len(group):4} jobs  {_time(sum(cost(study, job) for job in group)):>12} on one core")
    for job in kinds.get("stage2", []):
        first = VARIANTS[job.what.split("+")[0]]
        lines.append(f"  {job.name}: {conversations(study, first)} conversations, {_time(cost(study, job))}")
    lines.append(f"{len(waiting)} jobs, {_time(total)} on one core, {_time(total / workers)} on {workers}")
    return lines
