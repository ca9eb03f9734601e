"""What has to be known of a run to repeat it, or to go on with it: setup, command, code, versions, machine."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError
from parrot_train.config import Stage, section_of

_PACKAGES = ("parrot-edge", "torch", "transformers", "accelerate", "tokenizers", "numpy", "pillow")
# Settings that change how a run is done but not what comes out: they may differ when it is resumed.
# What data.extend names is hashed like all data; runs from before there was one are to be resumed.
_FREE_DATA = {"workers", "nano_folder", "heldout", "image_cache", "extend"}
# How a launched stage is shared out stands in ``parallel``, and decides nothing where there is no launcher.
_FREE_STAGE = {"save_steps", "keep_checkpoints", "log_steps", "zero", "offload", "deepspeed"}
_FREE_STAGE |= {"eval_steps", "eval_samples", "report_to"}
ALONE = {"ranks": 1}


def describe_origin(stage: Stage, source: Path | None, *, ranks: int, per_machine: int | None) -> dict[str, Any]:
    """The part of ``run.json`` that tells how a run can be repeated.

    ``source`` is the run it starts from, ``per_machine`` the number of ranks of one machine where a launcher started
    them. ``reproduce`` reads the settings out of the run.json beside which it is run, and asks for the same threads:
    sums are rounded by how they are shared out.
    """
    import torch

    threads = torch.get_num_threads()
    program = "parrot-train"
    if per_machine is not None:
        machines = f"--nnodes {ranks // per_machine}" if ranks > per_machine else "--standalone"
        program = f"torchrun {machines} --nproc-per-node {per_machine} -m parrot_train"
    origin = f" --from {shlex.quote(str(source))}" if source else ""
    return {
        "command": shlex.join(["parrot-train", *sys.argv[1:]]),
        "reproduce": f"OMP_NUM_THREADS={threads} {program} {section_of(stage)} --config run.json{origin} -o DIR",
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
        "machine": {"platform": platform.platform(), "device": _device()},
        "threads": threads,
    }


def _commit() -> str | None:
    """The commit that this code is checked out at, ``-dirty`` where it was changed; None where it is installed."""
    here = Path(__file__)
    git = ("git", "-C", str(here.parent))
    settings = {
        "env": os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        "capture_output": True,
        "text": True,
    }
    try:
        # An installed copy may lie in a checkout of something else, which does not track it.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, **settings)
        described = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(described, check=True, **settings).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}"


def check_same(old: dict[str, Any], new: dict[str, Any], run: Path) -> None:
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
    settings, stage = note.get("settings", {}), section_of(note.get("stage"))
    flat: dict[str, Any] = {}
    others = _FREE_DATA | ({"stage1", "stage2"} - {stage})
    for section, free in (("backbones", set()), ("model", set()), ("data", others), (stage, _FREE_STAGE)):
        for key, value in settings.get(section, {}).items():
            if key == "lora":  # without adapters its settings decide nothing; runs from before them have none
                flat |= {f"{section}.lora.{name}": part for name, part in value.items() if value["rank"]}
            elif key not in free:
                flat[f"{section}.{key}"] = value
    for source in note.get("data", []):
        flat[f"sha256 of {source['file']}"] = source["sha256"]
        flat[f"records left out of {source['file']}"] = source.get("left_out")
        flat[f"sizes of the pictures of {source['file']}"] = source.get("picture_sizes")
    flat["starting weights"] = note.get("from", {}).get("sha256")
    flat["copied experts"] = note.get("from", {}).get("copied")
    flat["samples"] = note.get("samples")
    return flat | {f"parallel.{key}": value for key, value in note.get("parallel", ALONE).items()}
