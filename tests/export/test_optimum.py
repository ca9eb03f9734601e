"""``optimum-cli export parrot``, with the real optimum: the same command as parrot-export, under another name."""

import json
import subprocess
import sys

import click
import pytest

from parrot_export.cli import export
from parrot_export.inspection import inspect
from tests.export.tiny_checkpoint import tiny_model, write_checkpoint

pytest.importorskip("optimum.commands.optimum_cli", reason="optimum is not installed: the extra [optimum] brings it")
_PROGRAM = [sys.executable, "-m", "optimum.commands.optimum_cli", "export"]


def _run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([*_PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def test_it_is_listed_with_every_option():
    assert "parrot" in _run("--help").stdout
    shown = _run("parrot", "--help").stdout
    for parameter in export.params:
        if isinstance(parameter, click.Option):
            assert all(name in shown for name in (*parameter.opts, *parameter.secondary_opts))


def test_it_exports_a_bundle(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c%", tiny_model())
    done = _run("parrot", checkpoint, "-o", tmp_path / "b", "--fp32", "--target", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verification"]["status"] == "passed"
    assert inspect(tmp_path / "b")["precision"] == "fp32"


def test_errors_are_one_line(tmp_path):
    done = _run("parrot", "--no-verify", "--", "-none-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("optimum-cli export parrot: -none-: there is no such checkpoint folder")
    done = _run("parrot", tmp_path, "--target", "moon")
    assert done.returncode == 2
    assert "'moon' is not one of" in done.stderr
