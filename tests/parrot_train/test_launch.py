"""Both stages under the three launchers, on two real ranks on the CPU: what comes out, what ends them, what comes back.

Every run is float32 on gloo, where two ranks add in one order: the same run ends with the same bits. One process and
two ranks add gradients in another order, so they agree to rounding.
"""

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
import torch
from safetensors.torch import load_file
from small_records import further_records, held_out_records, write_data
from wide_heads import write_wide_heads

from parrot_train import checkpoint
from parrot_train.config_files import load_config
from parrot_train.stages import StageRequest, run_stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # of a machine that has other things to do; alone it is two minutes for all
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed"),
]
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"),
    "deepspeed": ("deepspeed.launcher.runner", "--num_gpus", "2", "--module"),
    "accelerate": (
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "-m"),
    ),
}
# 41 records in micro-batches of 2 are 21: the last step of an epoch has too few for both ranks.
RECORDS, STEPS = 41, 12
STAGE = (
    "{learning_rate: 1e-2, epochs: 2, global_batch: 8, micro_batch: 2, gradient_checkpointing: true, log_steps: 1, "
    "save_steps: 4, eval_steps: 5, eval_samples: 3, precision: fp32}"
)


class Workshop:
    """A folder with data and settings, in which stages are trained, launched and not."""

    def __init__(self, folder, backbones):
        self.folder = folder
        llm = write_wide_heads(folder / "llm", backbones.tokenizer)
        data = write_data(folder / "data", count=RECORDS)
        further = write_data(folder / "data", further_records("es", "de"), name="further.json")
        heldout = write_data(folder / "data", held_out_records(), name="heldout.json")
        self.config = folder / "tiny.yaml"
        self.config.write_text(
            f"name: nano\nbackbones: {{vision: {backbones.vision}, llm: {llm}}}\n"
            f"data: {{workers: 0, max_length: 128, image_cache: pixels, stage1: [{data}], stage2: [{data}], "
            f"extend: [{further}], heldout: [{heldout}]}}\n"
            f"stage1: {STAGE}\nstage2: {STAGE}\nextend: {STAGE}\n"
        )

    def alone(self, stage, output, *overrides, **request):
        """Train in this process."""
        config = load_config(str(self.config), overrides)
        run_stage(StageRequest(stage, config, output=self.folder / output, **request))
        return self.folder / output

    def start(self, launcher, stage, output, *options):
        command = [sys.executable, "-m", *LAUNCHERS[launcher], "parrot_train", stage]
        command += ["--config", self.config, "-o", self.folder / output, *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def launch(self, *arguments):
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-6000:]
        return out, errors


@pytest.fixture(scope="session")
def workshop(tmp_path_factory, backbones):
    return Workshop(tmp_path_factory.mktemp("launch"), backbones)


@pytest.fixture(scope="session")
def alone(workshop):
    """Both stages in one process."""
    first = workshop.alone(1, "alone/stage1")
    return first, workshop.alone(2, "alone/stage2", source=first)


@pytest.fixture(scope="session")
def launched(workshop):
    """Both stages on two ranks, ZeRO 2 and then 3, which is the default; the second as it was said and warned."""
    workshop.launch("torchrun", "stage1", "two/stage1")
    said = workshop.launch("torchrun", "stage2", "two/stage2", "--from", workshop.folder / "two/stage1")
    return workshop.folder / "two/stage1", workshop.folder / "two/stage2", said


def weights(run):
    return load_file(run / "model.safetensors")


def history(run, kind="loss"):
    path = run / "checkpoints" / f"checkpoint-{STEPS}" / "trainer_state.json"
    return [line for line in json.loads(path.read_text())["log_history"] if kind in line]


def same_bits(one, two):
    one, two = weights(one), weights(two)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def when(condition, process):
    """Wait until ``condition`` holds, for a process that lives."""
    while not condition():
        assert process.poll() is None, process.communicate()[1][-6000:]
        time.sleep(0.01)


def rank(process, number):
    """The process of a rank below a launcher; None while there is none."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            own = "parrot_train" in child.cmdline() and "RANK" in child.environ()
            if own and child.environ()["RANK"] == str(number):
                return child
    return None


def said_by_parrot(errors):
    return [line for line in errors.splitlines() if line.startswith("parrot-train: ")]


# --- what comes out -------------------------------------------------------------------------------------------------
def test_two_ranks_learn_what_one_process_learns(alone, launched):
    """Found after 12 steps of Adam: losses and weights 2e-6 apart, norms 2e-5 of their size."""
    for one, two in zip(alone, launched[:2], strict=True):
        here, there = history(one), history(two)
        assert len(here) == len(there) == STEPS
        for mine, theirs in zip(here, there, strict=True):
            assert mine.keys() == theirs.keys()
            for name in mine.keys() - {"tokens_per_second", "epoch"}:
                rounding = {"rel": 1e-4} if name == "grad_norm" else {"abs": 1e-5}
                assert theirs[name] == pytest.approx(mine[name], **rounding), name
        here, there = history(one, "eval_loss"), history(two, "eval_loss")
        assert [line["step"] for line in here] == [5, 10, STEPS]
        for mine, theirs in zip(here, there, strict=True):
            assert mine.keys() == theirs.keys()
            for name in mine.keys() - {"eval_seconds", "epoch"}:
                assert theirs[name] == pytest.approx(mine[name], abs=1e-5), name
        expected, found = weights(one), weights(two)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name], tensor, rtol=0, atol=1e-5), name
            if "vision_tower" in name:
                assert torch.equal(found[name], tensor), name


def test_without_deepspeed_two_ranks_learn_the_same(workshop, launched):
    """Plain data parallelism. Found: 8e-7 apart."""
    run = workshop.folder / "plain/stage2"
    workshop.launch("torchrun", "stage2", run, "--from", launched[0], "--set", "stage2.zero=0")
    expected, found = weights(launched[1]), weights(run)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], tensor, rtol=0, atol=1e-5) for name, tensor in expected.items())
    assert checkpoint.read_run(run)["parallel"] == {"ranks": 2, "zero": 0, "offload": "none"}


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_two_ranks_extend_as_one_process_does(workshop, launched, zero):
    """Old experts keep every bit, however the ranks share them out: their gradient is zero before it is cut up."""
    run, languages = workshop.folder / f"zero{zero}/extend", ("--set", f"extend.zero={zero}", "--languages", "es,de")
    alone = workshop.folder / "alone/extend"
    if not alone.exists():
        workshop.alone("extend", alone, "extend.languages=[es, de]", source=launched[1])
    workshop.launch("torchrun", "extend", run, "--from", launched[1], *languages)
    old, expected, found = weights(launched[1]), weights(alone), weights(run)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=1e-5), name
        kept = slice(len(old[name])) if ".moe." in name else ...
        assert torch.equal(found[name][kept], old[name]), name
    mixture = next(name for name in found if ".moe.experts" in name)
    assert len(found[mixture]) == len(old[mixture]) + 2
    assert checkpoint.read_run(run)["parallel"]["zero"] == zero


def test_a_launched_run_is_an_ordinary_one(launched):
    first, second, (out, errors) = launched
    assert out.count("stage 2 finished, 12 steps") == 1
    assert said_by_parrot(errors) == []
    notes = [checkpoint.read_run(run) for run in (first, second)]
    assert [note["parallel"] for note in notes] == [
        {"ranks": 2, "zero": 2, "offload": "none"},
        {"ranks": 2, "zero": 3, "offload": "none"},
    ]
    assert [note["status"] for note in notes] == ["finished"] * 2
    assert notes[1]["trained_parameters"] < notes[1]["parameters"] == sum(map(torch.numel, weights(second).values()))
    left = {path.name for path in second.iterdir()} - notes[1]["files"].keys()
    assert left == {"run.json", "log.jsonl", "config.yaml", "checkpoints", ".lock"}


def test_what_ran_on_two_ranks_is_exported(launched, tmp_path):
    from parrot_export.bundle import ExportRequest, export

    _, manifest = export(ExportRequest(checkpoint=launched[1], output=tmp_path / "bundle", target="cpu"))
    assert manifest.verification["status"] == "passed"


# --- what ends a run, and what comes back ---------------------------------------------------------------------------
def test_a_run_that_was_hit_again_and_again_ends_with_the_same_bits(workshop, launched):
    """Under all three launchers in turn: a rank killed, a checkpoint spoilt, a full disk; then it is let finish."""
    run, options = workshop.folder / "hit/stage2", ("--from", launched[0])
    process = workshop.start("deepspeed", "stage2", run, *options)
    when(lambda: len(checkpoint.checkpoints(run)) >= 2, process)
    began = time.monotonic()
    rank(process, 1).kill()
    errors = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert time.monotonic() - began < 60
    assert len(said_by_parrot(errors)) == 1
    assert "has lost another rank" in said_by_parrot(errors)[0]
    assert checkpoint.read_run(run)["status"] == "failed"
    assert not (run / "model.safetensors").exists()

    newest, older = checkpoint.checkpoints(run)[:2]
    spoilt = max(newest.rglob("*_optim_states.pt"))
    spoilt.write_bytes(spoilt.read_bytes()[:-50])
    process = workshop.start("torchrun", "stage2", run, *options, "--resume")
    when(lambda: rank(process, 1), process)
    resource.prlimit(rank(process, 1).pid, resource.RLIMIT_FSIZE, (1000, 1000))  # no file of it may be longer
    errors = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert f"{newest} is damaged and is passed over: {spoilt.relative_to(newest)}" in errors
    assert f"{run}: goes on from {older}" in errors
    assert len(said_by_parrot(errors)) == 1
    assert f"the last good checkpoint is {older}; make room" in said_by_parrot(errors)[0]
    assert checkpoint.read_run(run)["status"] == "failed"
    assert "cannot be written" in checkpoint.read_run(run)["error"]
    assert checkpoint.last_good_checkpoint(run)[0] == older

    workshop.launch("accelerate", "stage2", run, *options, "--resume")
    assert checkpoint.read_run(run)["status"] == "finished"
    assert same_bits(run, launched[1])
    assert [line["step"] for line in history(run)] == list(range(1, STEPS + 1))


def test_a_signal_to_one_rank_saves_and_stops_all(workshop):
    """And while they run, a second run on the folder is refused by all its ranks, with one line."""
    run = workshop.folder / "stopped/stage1"
    settings = ("stage1.epochs=2000", "stage1.save_steps=100000", "stage1.offload=optimizer")
    process = workshop.start(
        "torchrun", "stage1", run, *(argument for each in settings for argument in ("--set", each))
    )
    when((run / "log.jsonl").exists, process)
    second = workshop.start("torchrun", "stage1", run, "--resume")
    errors = second.communicate(timeout=300)[1]
    assert second.returncode != 0
    assert len(said_by_parrot(errors)) == 1
    assert "another training (process" in said_by_parrot(errors)[0]
    rank(process, 1).send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert len(said_by_parrot(errors)) == 1
    assert "stopped at step" in said_by_parrot(errors)[0]
    note = checkpoint.read_run(run)
    assert note["status"] == "interrupted"
    assert checkpoint.last_good_checkpoint(run)[0] is not None
