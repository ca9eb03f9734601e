"""One job of the study, in a process of its own: ``python -m parrot_benchmarks.paper.job FOLDER KIND/WHAT/SEED``.

A run that is cut goes on from its last checkpoint, and answers from the last that was kept; backbones and data, minutes
of work, begin again. The job ends when its standard input does: with the runner, however that ended.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click

from parrot_benchmarks.paper.study import (
    CAPTION_PASSES,
    CAPTIONS_PART,
    QUESTIONS_JOB,
    Job,
    Study,
    finished,
    output,
    part_name,
)
from parrot_benchmarks.paper.variants import VARIANTS, Variant
from parrot_runtime.errors import ParrotError
from parrot_train.nano.write import ensure_evaluation

SAVE_STEPS = 50
"""Twenty seconds of training, about."""


def run(study: Study, job: Job, report: Callable[[str], None]) -> None:
    """Do ``job``; what it needs is there."""
    from parrot_benchmarks.paper import backbones, world

    folder = output(study, job)
    if job.kind == "questions":
        ensure_evaluation(folder)
    elif job.kind == "data":
        world.write_data(study, job.what, job.seed, folder)
    elif job.kind == "encoder":
        backbones.make_encoder(folder, report)
    elif job.kind == "llm":
        backbones.make_language_model(job.what, folder, report)
    elif job.kind == "stage1":
        encoder, llm = job.what.split("+")
        _train(study, Variant("stage1", "", encoder=encoder, llm=llm), 1, job.seed, folder)
    else:
        _stage2([VARIANTS[name] for name in job.what.split("+")], study, job.seed, folder)


def overrides(study: Study, variant: Variant, seed: int) -> list[str]:
    """The ``--set`` of a variant's trainings, over ``--config nano``."""
    from parrot_benchmarks.paper.backbones import folder_of
    from parrot_benchmarks.paper.world import data_file

    files = [str(data_file(study, part_name(*part), seed)) for part in study.parts(variant)]
    made = {
        "name": f"study-{variant.name}",
        "backbones.vision": folder_of(study, "vision", variant.encoder),
        "backbones.llm": folder_of(study, "llm", variant.llm),
        "data.stage1": json.dumps([str(data_file(study, CAPTIONS_PART, seed))]),
        "data.stage2": json.dumps(files),
        "data.workers": 1,
        "stage1.epochs": CAPTION_PASSES,
        "stage1.seed": seed,
        "stage2.seed": seed,
        "stage1.save_steps": SAVE_STEPS,
        "stage2.save_steps": SAVE_STEPS,
    }
    return [*(f"{key}={value}" for key, value in made.items()), *variant.overrides, *study.settings]


def _train(study: Study, variant: Variant, stage: int, seed: int, folder: Path) -> dict:
    from parrot_train.config_files import load_config
    from parrot_train.stages import StageRequest, run_stage

    config = load_config("nano", overrides(study, variant, seed))
    source = study.stage1(*variant.start, seed) if stage == 2 else None
    note = run_stage(StageRequest(stage, config, output=folder, source=source, resume=True))
    assert note is not None  # one process, no launcher
    return note


def _stage2(variants: list[Variant], study: Study, seed: int, folder: Path) -> None:
    """Train, answer for every variant of the same weights, keep the results, and only then remove the weights.

    Variants whose result is there are passed over: a runner that this one waited for may have kept some.
    """
    from parrot_benchmarks.paper.answering import measured, open_checkpoint
    from parrot_benchmarks.paper.mixtures import installed
    from parrot_evaluation.benchmarks import find_benchmark

    variants = [variant for variant in variants if not finished(study, variant, seed)]
    if not variants:
        return
    first = variants[0]
    with installed(first.mixture, study.stage1(*first.start, seed) / "tokenizer.json"):
        note = _train(study, first, 2, seed, folder)
        _say(f"{first.name}: trained, {time.process_time():.0f} s of a core so far")
        ask = open_checkpoint(folder, max_new_tokens=find_benchmark("nano").max_new_tokens)
        for variant in variants:
            found = measured(
                variant,
                ask,
                seed,
                data=output(study, QUESTIONS_JOB),
                questions=study.questions,
                journal=folder / f"answers-{variant.name}.jsonl",
            )
            _say(f"{variant.name}: answered, {time.process_time():.0f} s of a core so far")
            result = {
                "variant": variant.name,
                "seed": seed,
                "training": variant.training,
                "samples": note["samples"],
                "languages": note["languages"],
                "parameters": note["parameters"],
                "steps": note["steps"],
                "loss": note["loss"],
                "cells": found,
            }
            study.keep_result(result)
    shutil.rmtree(folder)


def _end_with_parent() -> None:
    """The runner holds the other end of standard input and writes nothing: the end of it is the runner's."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """The exit status; an error is one line on stderr."""
    folder, name = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    kind, what, seed = name.split("/")
    try:
        run(Study.read(Path(folder)), Job(kind, what, int(seed)), _say)
    except ParrotError as error:
        _say(str(error))
        return error.exit_code
    _say(f"{name}: {time.process_time():.0f} s of a core")
    return 0


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    sys.exit(main())
