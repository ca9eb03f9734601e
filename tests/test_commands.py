"""Every command has a --help with an example, and its --help is quick to load: no heavy import."""

import subprocess
import sys

import click
import pytest

from parrot_benchmarks.cli import main as parrot_bench
from parrot_calibration.cli import main as parrot_calibrate
from parrot_evaluation.cli import main as parrot_eval
from parrot_export.cli import main as parrot_export
from parrot_runtime.cli import main as parrot_run
from parrot_train.cli import main as parrot_train

COMMANDS = {
    "parrot-train": parrot_train,
    "parrot-export": parrot_export,
    "parrot-run": parrot_run,
    "parrot-eval": parrot_eval,
    "parrot-bench": parrot_bench,
    "parrot-calibrate": parrot_calibrate,
}


def _walk(name: str, command: click.Command):
    yield name, command
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from _walk(f"{name} {child}", command.commands[child])


@pytest.mark.parametrize(("name", "command"), [pair for name, root in COMMANDS.items() for pair in _walk(name, root)])
def test_help_has_an_example(name, command):
    text = command.get_help(click.Context(command, info_name=name))
    assert text.startswith("Usage:")
    if not isinstance(command, click.Group) or command.invoke_without_command:
        assert "Example" in text, f"{name} --help shows no example"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_no_framework(name):
    module = COMMANDS[name].callback.__module__
    program = (
        f"import sys, {module} as cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_option_ends_with_code_2(name):
    with pytest.raises(SystemExit) as end:
        COMMANDS[name].main(["--no-such-option"], prog_name=name)
    assert end.value.code == 2
