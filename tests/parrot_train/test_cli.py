"""``parrot-train`` as a person uses it: exit codes, one line per error, results on stdout, death and resume."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from parrot_train.cli import main
from parrot_train.config_files import load_config, to_yaml


@pytest.fixture
def run(config_file, data, tmp_path, monkeypatch):
    """Call ``parrot-train`` in ``tmp_path`` with the tiny backbones."""
    monkeypatch.chdir(tmp_path)
    data()

    def call(command, *arguments):
        return CliRunner().invoke(main, [command, "--config", config_file, *arguments])

    return call


def test_both_stages_with_data_named_on_the_line(run):
    first = run("stage1", "--data", "data/train.json")
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("runs/nano/stage1: stage 1 finished, 5 steps in ")
    second = run("stage2", "--data", "data/train.json", "--from", "runs/nano/stage1", "-o", "mine", "--json")
    assert second.exit_code == 0, second.output
    note = json.loads(second.stdout)
    assert (note["status"], note["stage"], note["languages"]["zh"]) == ("finished", 2, 13)
    threads = f"OMP_NUM_THREADS={note['threads']}"
    assert note["reproduce"] == f"{threads} parrot-train stage2 --config run.json --from runs/nano/stage1 -o DIR"


def test_the_run_reproduces_itself(run):
    # A name that JSON would write as two escapes, which YAML does not join.
    Path("data/train.json").rename("data/𠮷😀.json")
    assert run("stage1", "--data", "data/𠮷😀.json").exit_code == 0
    note = shutil.copy("runs/nano/stage1/run.json", ".")
    threads, program, *arguments = json.loads(Path(note).read_text())["reproduce"].split()
    assert (threads, program) == (f"OMP_NUM_THREADS={torch.get_num_threads()}", "parrot-train")
    again = CliRunner().invoke(main, [argument.replace("DIR", "again") for argument in arguments])
    assert again.exit_code == 0, again.output
    one, two = (load_file(Path(folder) / "model.safetensors") for folder in ("runs/nano/stage1", "again"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_errors_are_one_line_with_code_2(run):
    for arguments, words in (
        (("stage2",), "run `parrot-train stage1` first"),
        (("stage1", "--data", "none.json"), "none.json: there is no such file"),
        (("stage1", "--set", "stage1.epoch=2"), "did you mean 'epochs'"),
        (("stage1", "--config", "nan"), "did you mean 'nano'"),
        (("stage1", "--max-bad-fraction", "2"), "max_bad_fraction is 2.0"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stdout == ""
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
    assert run("stage1", "--resume", "--force").exit_code == 2


def test_bad_records_are_a_list(run):
    path = Path("data/train.json")
    items = json.loads(path.read_text())
    items[3]["conversations"] = items[8]["image"] = 5
    path.write_text(json.dumps(items))
    result = run("stage1", "--data", str(path))
    assert result.exit_code == 2
    assert [line.split(" ")[2] for line in result.stderr.splitlines()[1:]] == [f"{path}[3]", f"{path}[8]"]
    assert run("stage1", "--data", str(path), "--max-bad-fraction", "0.05").exit_code == 0
    assert json.loads(Path("runs/nano/stage1/skipped.json").read_text())["skipped"] == 2


def test_config_prints_yaml_and_json():
    result = CliRunner().invoke(main, ["config"])
    assert result.stdout == to_yaml(load_config("nano"))
    result = CliRunner().invoke(main, ["config", "nano", "--set", "stage1.clip=2", "--json"])
    assert json.loads(result.stdout)["stage1"]["clip"] == 2.0
    assert CliRunner().invoke(main, ["config", "namo"]).exit_code == 2


def test_nano_data_writes_its_files(tmp_path):
    sets = [item for name in ("stage1", "stage2", "heldout") for item in ("--set", f"nano.{name}_scenes=2")]
    result = CliRunner().invoke(main, ["nano", "data", "-o", str(tmp_path / "world"), "--json", *sets])
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)
    assert set(files) == {"stage1", "stage2", "heldout"}
    assert len(json.loads(Path(files["stage1"]).read_text())) == 2


def start(arguments, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "parrot_train", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_nothing_but_the_result_is_on_stdout(data, config_file, tmp_path):
    """In a process of its own, since a library's log finds its stream once: DeepSpeed's is stdout."""
    process = start(["stage1", "--config", config_file, "--data", str(data()), "-o", "run", "--json"], tmp_path)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    assert json.loads(said)["status"] == "finished"


def wait_for_steps(process, log, steps):
    for _ in range(2400):
        if log.is_file() and len(log.read_text().splitlines()) >= steps:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail(f"no {steps} steps after two minutes")


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [(signal.SIGTERM, 143, "interrupted"), (signal.SIGINT, 130, "interrupted"), (signal.SIGKILL, -9, "running")],
)
def test_a_killed_run_goes_on_to_the_same_bits(run, config_file, tmp_path, number, code, status):
    common = ["--data", "data/train.json", "--set", "stage1.epochs=8", "--set", "stage1.save_steps=3"]
    assert run("stage1", *common, "-o", "whole").exit_code == 0
    folder = tmp_path / "killed"
    arguments = ["stage1", "--config", config_file, *common, "-o", str(folder)]
    process = start(arguments, tmp_path)
    try:
        wait_for_steps(process, folder / "log.jsonl", 8)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, said
    assert json.loads((folder / "run.json").read_text())["status"] == status
    if code > 0:
        assert "go on with --resume" in said.splitlines()[-1]
    resumed = run("stage1", *common, "-o", str(folder), "--resume")
    assert resumed.exit_code == 0, resumed.output
    one, two = (load_file(place / "model.safetensors") for place in (tmp_path / "whole", folder))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_ctrl_c_in_a_terminal_reaches_the_loading_workers_too(run, config_file, tmp_path):
    """The whole process group has the signal; the workers leave it to the training, which saves and says one line."""
    folder, loading = tmp_path / "stopped", ["--set", "data.image_cache=none", "--set", "data.workers=2"]
    common = ["--data", "data/train.json", "--set", "stage1.epochs=8", *loading]
    process = start(["stage1", "--config", config_file, *common, "-o", str(folder)], tmp_path)
    try:
        wait_for_steps(process, folder / "log.jsonl", 4)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "go on with --resume" in said.splitlines()[-1]
    resumed = run("stage1", *common, "-o", str(folder), "--resume")
    assert resumed.exit_code == 0, resumed.output
