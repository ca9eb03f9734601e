"""One question as work of a fixed size, and what it costs whoever does it.

Pictures and words are drawn at random, so nothing depends on what a model says; answers never end early. Each
measurement is made in a process of its own, which alone makes its peak memory its own.
"""

import dataclasses
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from parrot_benchmarks.subjects import Subject, create
from parrot_runtime.errors import InputError, ParrotError


@dataclass(frozen=True)
class Workload:
    """``images`` pictures and ``text`` words, then ``tokens`` of an answer; ``batch`` such questions side by side."""

    images: int = 1
    text: int = 43
    tokens: int = 64
    batch: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Cost:
    """Seconds: ``load``, per batch ``vision`` (experts included), ``prefill``, ``first`` (their sum) and ``total``;
    ``step_ms`` is the median of a decode step in milliseconds, ``memory`` the process's peak in MiB."""

    load: float
    vision: float
    prefill: float
    first: float
    step_ms: float
    total: float
    memory: float


def run(subject: str, workload: Workload) -> Cost:
    """``subject`` (see ``create``) in a process of its own. Raises InputError, ParrotError."""
    request = json.dumps({"subject": subject, "workload": dataclasses.asdict(workload)})
    done = subprocess.run(
        [sys.executable, "-m", "parrot_benchmarks.workload", request], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        kind = InputError if done.returncode == InputError.exit_code else ParrotError
        raise kind(f"{subject}: could not be measured ({last})")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def median(costs: Sequence[Cost]) -> Cost:
    """Field by field."""
    fields = [field.name for field in dataclasses.fields(Cost)]
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in fields))


def _measure(subject: str, workload: Workload) -> Cost:
    start = time.perf_counter()
    work = create(subject, workload)
    load = time.perf_counter() - start
    _once(work, min(8, workload.tokens))  # kernels are chosen and memory is taken
    vision, prefill, steps = _once(work, workload.tokens)
    memory = _peak_memory()
    step_ms = 1e3 * statistics.median(steps) if steps else 0.0
    return Cost(load, vision, prefill, vision + prefill, step_ms, vision + prefill + sum(steps), memory)


def _peak_memory() -> float:
    """MiB this process has held at most. Not ``ru_maxrss``: that counts what the process it was forked from held."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def _once(work: Subject, tokens: int) -> tuple[float, float, list[float]]:
    """Seconds of the pictures and experts, of the prompt, and of each step after the first token."""
    start = time.perf_counter()
    prompt = work.look()
    looked = time.perf_counter()
    last = work.prefill(prompt)
    prefilled = time.perf_counter()
    steps = []
    for _ in range(tokens - 1):
        begun = time.perf_counter()
        last = work.step(last)
        steps.append(time.perf_counter() - begun)
    return looked - start, prefilled - looked, steps


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    try:
        click.echo(json.dumps(dataclasses.asdict(_measure(asked["subject"], Workload(**asked["workload"])))))
    except ParrotError as error:
        click.echo(error, err=True)
        sys.exit(error.exit_code)
