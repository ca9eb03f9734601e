"""The README is true: its commands run, its Python runs, and its tree names files that exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
# What trains for minutes or installs is run by `make demo`, by .ci/run, and small in test_end_to_end.py.
ELSEWHERE = ("make ", "pip ", "parrot-train stage", "parrot-export --fp16", "parrot-run image.jpg")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _commands() -> list[str]:
    lines = [line.split("   #")[0].strip() for block in _blocks("sh") for line in block.splitlines()]
    lines += [
        line.removeprefix("$ ") for block in _blocks("console") for line in block.splitlines() if line[:2] == "$ "
    ]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


def _run(command: list[str] | str, **options) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=250, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("line", _commands())
def test_commands_run(line, tmp_path):
    output = f" -o {tmp_path / 'results'}" if line.startswith("parrot-eval") else ""
    assert _run(["bash", "-o", "pipefail", "-c", line + output]).strip()


def test_the_answer_shown_is_the_answer_given():
    (block,) = _blocks("console")
    command, answer = block.strip().split("\n", 1)
    # From a folder without bundles, so that the shipped bundle answers, as it does straight after the install.
    words = command.removeprefix("$ ").replace("examples/", f"{ROOT}/examples/")
    assert _run(["bash", "-c", f"cd / && {words}"]).strip() == answer.strip()


@pytest.mark.parametrize("program", _blocks("python"))
def test_python_runs(program):
    assert _run([sys.executable, "-c", program]).strip()


def test_the_tree_names_what_exists():
    (tree,) = [block for block in _blocks("text") if "runtime/" in block]
    for line in tree.splitlines():
        name = line.split()[0] if line.strip() else ""
        if name:
            assert (ROOT / name).exists(), f"the README's tree names {name}, which is not there"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'src="([^"]+)"', README):
        assert target.startswith("http") or (ROOT / target).exists(), target
