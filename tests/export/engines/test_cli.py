"""``parrot-export engines`` as a person types it."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from small_graphs import rewrite

from parrot_export.cli import main
from parrot_export.engines.profiles import DEFAULT_MAX_BATCH
from parrot_runtime.manifest import load_manifest


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(main, ["engines", *map(str, arguments)], prog_name="parrot-export")
    assert result.exit_code == code, result.output
    return result


def test_one_line_per_engine_then_they_are_current(rtx, bundle):
    folder = bundle / f"engines/sm89-tensorrt-rtx-{rtx.version}"
    lines = run(bundle, "--sm", "89", "--flavour", "tensorrt-rtx", "--max-batch", 2).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        str(folder / f"{r}.engine") for r in ("encoder", "experts", "decoder")
    ]
    assert all(" MiB, built in " in line and line.endswith(" s") for line in lines)
    again = run(bundle, "--sm", "sm89", "--flavour", "tensorrt-rtx", "--max-batch", 2, "--json")
    (data,) = map(json.loads, again.stdout.splitlines())
    assert data["folder"] == str(folder)
    assert data["reason"] is None
    assert data["build"]["engines"]["decoder"]["profiles"][1]["shapes"]["inputs_embeds"]["max"] == [2, 1, 24]
    assert run(bundle, "--sm", "89", "--max-batch", 2).stdout.count("current (built in") == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sm", "ada"], "--sm is 'ada'; expected compute capabilities such as 80,89,120"),
        (["--max-batch", "0"], "--max-batch is 0"),
        (["--max-len", "3"], "--max-len is 3; this bundle takes 7 (one picture and a token) to 33"),
        (["--workspace", "0"], "--workspace is 0"),
    ],
)
def test_bad_input_is_one_line_and_code_2(bundle, arguments, complaint):
    result = run(bundle, *arguments, code=2)
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (bundle / "engines").exists()


def test_a_gpu_nobody_builds_for(rtx, bundle):
    assert "not for 90" in run(bundle, "--sm", "90", "--flavour", "tensorrt-rtx", code=2).stderr


def test_a_bundle_for_cpus_only(bundle):
    rewrite(bundle, load_manifest(bundle), tensorrt={}, tensorrt_dialect=None)
    result = run(bundle, code=2)
    assert result.stderr == (
        f"parrot-export: {bundle}: no graphs for TensorRT in this bundle; export one with --target tensorrt\n"
    )


def test_help_names_the_default_batch():
    assert f"[{DEFAULT_MAX_BATCH}]" in run("--help").stdout


def test_an_edge_box_builds_engines_without_torch():
    """An engine is built where it runs; that machine has the bundle, onnx and TensorRT, and no training packages."""
    code = """
import sys
for name in ("torch", "transformers", "onnx_ir", "onnxruntime", "safetensors"):
    sys.modules[name] = None
import parrot_export.cli, parrot_export.engines.cache
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
