"""Run folders: the lock, checkpoints that are whole or passed over, and finding a finished run."""

import subprocess
import sys

import pytest

from parrot_runtime.errors import InputError
from parrot_train import checkpoint


def make_checkpoint(run, step, text="state"):
    partial = run / "checkpoints" / f".checkpoint-{step}.partial" / f"checkpoint-{step}"
    (partial / "inner").mkdir(parents=True)
    (partial / "weights").write_text(f"{text} {step}")
    (partial / "inner" / "optimizer").write_bytes(bytes(1000))
    final = run / "checkpoints" / f"checkpoint-{step}"
    checkpoint.seal_checkpoint(partial, final)
    return final


def test_a_second_process_is_refused_and_a_dead_one_is_not(tmp_path):
    code = (
        "import sys; from pathlib import Path; from parrot_train.checkpoint import locked\n"
        "with locked(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(InputError, match=f"process {other.pid}"), checkpoint.locked(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with checkpoint.locked(tmp_path):  # the kernel has dropped the lock of the killed process
        pass


def test_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "file").write_text("precious")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="file is a file; give another folder"), checkpoint.locked(run):
            pass
    assert (tmp_path / "file").read_text() == "precious"


def test_the_newest_whole_checkpoint_is_taken_and_damaged_ones_are_named(tmp_path):
    for step in (9, 10, 100):
        make_checkpoint(tmp_path, step)
    good, faults = checkpoint.last_good_checkpoint(tmp_path)
    assert (good.name, faults) == ("checkpoint-100", [])
    weights = good / "weights"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    (tmp_path / "checkpoints" / "checkpoint-10" / "inner" / "optimizer").write_bytes(bytes(999))
    (tmp_path / "checkpoints" / ".checkpoint-200.partial").mkdir()
    good, faults = checkpoint.last_good_checkpoint(tmp_path)
    assert good.name == "checkpoint-9"
    assert [("checkpoint-100" in fault, "checkpoint-10 " in fault) for fault in faults] == [
        (True, False),
        (False, True),
    ]
    assert "another content" in faults[0]
    assert "999 bytes instead of 1000" in faults[1]


@pytest.mark.parametrize("ruin", ["remove", "empty", "list"])
def test_a_checkpoint_without_its_list_is_damaged(tmp_path, ruin):
    path = make_checkpoint(tmp_path, 1) / "checkpoint.json"
    if ruin == "remove":
        path.unlink()
    else:
        path.write_text("" if ruin == "empty" else "[]")
    assert checkpoint.last_good_checkpoint(tmp_path)[0] is None


def test_a_flip_of_any_byte_is_found(tmp_path):
    folder = make_checkpoint(tmp_path, 3)
    weights = folder / "weights"
    whole = weights.read_bytes()
    for place in range(len(whole)):
        weights.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert checkpoint.checkpoint_fault(folder)
    weights.write_bytes(whole)
    assert checkpoint.checkpoint_fault(folder) is None


def test_old_checkpoints_and_partial_ones_go(tmp_path):
    for step in (1, 2, 3, 12):
        make_checkpoint(tmp_path, step)
    checkpoint.keep_newest(tmp_path, 2, 12)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-12", "checkpoint-3"]


def test_damaged_checkpoints_do_not_push_out_the_one_just_written(tmp_path):
    """A run that went back behind them writes its own again."""
    for step in (200, 250, 300, 400):
        make_checkpoint(tmp_path, step)
    checkpoint.keep_newest(tmp_path, 2, 250)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["checkpoint-250", "checkpoint-200"]


def test_a_checkpoint_written_again_replaces_the_first(tmp_path):
    make_checkpoint(tmp_path, 4, "old")
    assert (make_checkpoint(tmp_path, 4, "new") / "weights").read_text() == "new 4"


def finish(folder, stage, when, status="finished"):
    folder.mkdir(parents=True)
    checkpoint.write_run(folder, {"status": status, "stage": stage, "finished": when})


def test_the_newest_finished_run_of_a_stage(tmp_path):
    with pytest.raises(InputError, match="run `parrot-train stage2` first"):
        checkpoint.newest_finished_run(2, tmp_path)
    finish(tmp_path / "nano" / "stage2", 2, "2026-01-01")
    finish(tmp_path / "mine", 2, "2026-01-02")
    finish(tmp_path / "nano" / "stage1", 1, "2026-01-03")
    finish(tmp_path / "late" / "stage2", 2, "2026-01-04", status="failed")
    assert checkpoint.newest_finished_run(2, tmp_path) == tmp_path / "mine"
    assert checkpoint.newest_finished_run(1, tmp_path) == tmp_path / "nano" / "stage1"


def test_clearing_leaves_what_training_did_not_write(tmp_path):
    make_checkpoint(tmp_path, 1)
    for name in ("log.jsonl", "config.yaml", "model.safetensors", "notes.json"):
        (tmp_path / name).write_text("x")
    checkpoint.write_run(tmp_path, {"status": "finished", "files": {"model.safetensors": {}, "../outside": {}}})
    outside = tmp_path.parent / "outside"
    outside.write_text("x")
    checkpoint.clear_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.json"]
    assert outside.exists()


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_run_file_that_is_no_object_is_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
        checkpoint.read_run(tmp_path)
