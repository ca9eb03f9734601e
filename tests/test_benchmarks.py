"""The benchmarks start, and say what they are for; what they measure is nobody's promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SHIPPED = FOLDER.parent / "runtime" / "bundles" / "nano-fp16"


def _run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, check=False, env=os.environ | {"COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.py")))
def test_help(script):
    assert "Usage:" in _run(FOLDER / script, "--help")


def test_the_gpus_without_one_measures_onnxruntime_and_says_so():
    from parrot_runtime.gpu import present_gpu

    if present_gpu() is not None:
        pytest.skip("there is a GPU here")
    output = _run(FOLDER / "gpu.py", SHIPPED, "--rounds", 1, "--steps", 8)
    assert "no GPU here: onnxruntime alone" in output
    assert "| decode, 8 slots |" in output
