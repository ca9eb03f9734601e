"""The run folder tells how to repeat a run: from run.json alone, in an empty folder, with the same bits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from parrot_runtime.errors import InputError
from parrot_train import checkpoint, provenance
from parrot_train.cli import main
from parrot_train.config_files import load_config, to_mapping
from parrot_train.provenance import describe_origin

SMALL = ("nano.stage1_scenes=24", "nano.stage2_scenes=24", "nano.heldout_scenes=6", "data.workers=0")
SMALL += ("stage1.max_steps=2", "stage2.max_steps=2", "stage1.global_batch=8", "stage1.micro_batch=8")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # of a machine that has other things to do; alone it is half a minute
def test_both_stages_are_repeated_from_run_json_alone(tmp_path, monkeypatch):
    """By the line in it, and no file but it: nano's data are drawn again, and the package has the backbones."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    monkeypatch.chdir(first)
    settings = [argument for each in SMALL for argument in ("--set", each)]
    for stage in (1, 2):
        result = CliRunner().invoke(main, [f"stage{stage}", *settings], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for stage in (1, 2):
        run = Path("runs/nano") / f"stage{stage}"
        note = json.loads((first / run / "run.json").read_text())
        second.mkdir(exist_ok=True)
        shutil.copy(first / run / "run.json", second)
        line = note["reproduce"].replace("DIR", str(run))
        done = subprocess.run(
            line, shell=True, cwd=second, env=os.environ | {"PATH": path}, text=True, capture_output=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
        again = checkpoint.read_run(second / run)
        assert again["files"] == note["files"]  # their hashes
        for name in ("settings", "versions", "machine", "threads", "data", "reproduce"):
            assert again[name] == note[name], name
        assert again["from"]["sha256"] == note["from"]["sha256"]


def test_a_launched_run_is_repeated_by_as_many_ranks():
    one = describe_origin(1, None, ranks=1, per_machine=None)
    assert one["reproduce"] == f"OMP_NUM_THREADS={one['threads']} parrot-train stage1 --config run.json -o DIR"
    alone = describe_origin(2, Path("a b"), ranks=2, per_machine=2)["reproduce"]
    assert "torchrun --standalone --nproc-per-node 2 -m parrot_train stage2 --config run.json --from 'a b'" in alone
    many = describe_origin(2, Path("x"), ranks=16, per_machine=8)["reproduce"]
    assert "torchrun --nnodes 2 --nproc-per-node 8 -m parrot_train stage2" in many


def test_the_commit_is_that_of_this_code_or_none(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "provenance.py").write_text("one")
    (tmp_path / "other.py").write_text("other")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance._commit() is None  # no checkout
    git("init", "-q")
    git("add", "other.py")
    git("commit", "-qm", "x")
    assert provenance._commit() is None  # another's checkout
    git("add", ".")
    git("commit", "-qm", "y")
    head = git("rev-parse", "HEAD")
    assert provenance._commit() == head
    (tmp_path / "other.py").write_text("changed")
    assert provenance._commit() == f"{head}-dirty"


def test_settings_are_read_out_of_run_json(tmp_path):
    config = load_config("nano", ["stage2.epochs=3"])
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"status": "finished", "settings": to_mapping(config)}))
    assert load_config(str(path)) == config
    assert load_config(str(path), ["stage2.epochs=4"]).stage2.epochs == 4
    for text in ("[]", '{"status": "finished"}', '{"settings": 3}', "{"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"run\.json"):
            load_config(str(path))
