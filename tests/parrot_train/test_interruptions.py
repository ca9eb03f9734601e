"""What runs survive: crashes, signals, full disks, damaged checkpoints, losses that are no numbers."""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_records import record

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.publish import write_file
from parrot_train import checkpoint
from parrot_train.signals import InterruptedRunError, Signals
from parrot_train.trainer import DivergedError, ParrotTrainer


def weights(run):
    return load_file(run / "model.safetensors")


class Stop(Exception):
    """Stands for a crash."""


def crash_at(monkeypatch, step, error=Stop):
    """Let training end with ``error`` when the given step begins."""
    original = ParrotTrainer.training_step

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step + 1 == step:
            raise error
        return original(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(ParrotTrainer, "training_step", training_step)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_resumed_run_ends_with_the_same_bits(train, monkeypatch, stage):
    settings = ("stage1.save_steps=2", "stage1.epochs=2", "stage2.save_steps=3", "stage2.epochs=2")
    train(1, *settings)
    whole = Path("runs/nano/stage1") if stage == 1 else train(2, *settings)
    for place, step in enumerate((1, 4, 6, 8)):
        run = Path(f"again{place}")
        with monkeypatch.context() as patch:
            crash_at(patch, step)
            with pytest.raises(Stop):
                train(stage, *settings, output=run)
        assert checkpoint.read_run(run)["status"] == "failed"
        with pytest.raises(InputError, match="--resume"):
            train(stage, *settings, output=run)
        train(stage, *settings, output=run, resume=True)
        for name, tensor in weights(whole).items():
            assert torch.equal(tensor, weights(run)[name]), (step, name)


def test_a_damaged_checkpoint_is_passed_over_aloud(train, monkeypatch, capsys):
    settings = ("stage1.save_steps=1", "stage1.keep_checkpoints=3")
    whole = train(1, *settings, output=Path("whole"))
    with monkeypatch.context() as patch:
        crash_at(patch, 5)
        with pytest.raises(Stop):
            train(1, *settings)
    newest = Path("runs/nano/stage1/checkpoints/checkpoint-4/optimizer.pt")
    newest.write_bytes(newest.read_bytes()[:-100])
    run = train(1, *settings, resume=True)
    said = capsys.readouterr().err
    assert "checkpoint-4 is damaged and is passed over: optimizer.pt" in said
    assert "goes on from runs/nano/stage1/checkpoints/checkpoint-3" in said
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name])


def test_a_run_is_not_resumed_with_another_setup(train, monkeypatch, data):
    with monkeypatch.context() as patch:
        crash_at(patch, 4)
        with pytest.raises(Stop):
            train(1, "stage1.save_steps=1")
    with pytest.raises(InputError, match=r"stage1.learning_rate was 0.001 and is 0.5"):
        train(1, "stage1.learning_rate=0.5", resume=True)
    data(json.loads(Path("data/train.json").read_text())[:39])
    with pytest.raises(InputError, match="samples was 40 and is 39"):
        train(1, resume=True)
    data()
    picture = Path("data/pictures/3.png")
    kept = picture.read_bytes()
    Image.new("RGB", (50, 20), "green").save(picture)
    with pytest.raises(InputError, match=r"sizes of the pictures of .*train.json was"):
        train(1, resume=True)
    picture.write_bytes(kept)
    # These change nothing of the result.
    free = ("stage1.log_steps=3", "stage1.save_steps=2", "data.image_cache=none", "data.stage2=[none.json]")
    train(1, *free, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_with_its_code(train, monkeypatch, number):
    whole = train(1, output=Path("whole"))
    original = ParrotTrainer.training_step

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step == 2:
            os.kill(os.getpid(), number)
        return original(self, model, inputs, num_items_in_batch)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(ParrotTrainer, "training_step", training_step)
        with pytest.raises(InterruptedRunError, match="stopped at step 3 and saved") as caught:
            train(1, "stage1.save_steps=100", "stage1.micro_batch=8")
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    run = Path("runs/nano/stage1")
    assert checkpoint.read_run(run)["status"] == "interrupted"
    assert checkpoint.last_good_checkpoint(run)[0].name == "checkpoint-3"
    train(1, "stage1.save_steps=100", "stage1.micro_batch=8", resume=True)
    assert weights(whole).keys() == weights(run).keys()


def test_what_a_launcher_passes_on_is_one_signal():
    """Its ranks get Ctrl-C from the terminal, and then from the launcher."""
    with Signals(launched=True) as signals, signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == signal.SIGTERM
    with Signals() as signals, signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(InterruptedRunError):
            os.kill(os.getpid(), signal.SIGINT)
    with Signals() as signals:
        signals.settle()
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_loading_worker_that_dies_ends_the_run(train, monkeypatch):
    original = ParrotTrainer.training_step

    def training_step(self, model, inputs, num_items_in_batch=None):
        server = [child for child in psutil.Process().children() if child.children()]
        for worker in [worker for parent in server for worker in parent.children()]:
            worker.kill()
        return original(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(ParrotTrainer, "training_step", training_step)
    with pytest.raises(ParrotError, match=r"decodes images died .*; go on with --resume") as caught:
        train(1, "data.image_cache=none", "data.workers=1")
    assert caught.value.exit_code == 1
    assert checkpoint.read_run(Path("runs/nano/stage1"))["status"] == "failed"


def test_the_log_of_a_resumed_run_has_every_step_once(train, monkeypatch):
    settings = ("stage1.save_steps=2",)
    with monkeypatch.context() as patch:
        crash_at(patch, 4)
        with pytest.raises(Stop):
            train(1, *settings)
    log = Path("runs/nano/stage1/log.jsonl")
    assert len(log.read_text().splitlines()) == 3
    with log.open("a") as file:
        file.write('{"step": 4, "lo')  # cut short
    train(1, *settings, resume=True)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("place", ["torch.save", "parrot_train.trainer.seal_checkpoint"])
def test_a_full_disk_keeps_the_last_checkpoint(train, monkeypatch, place):
    whole = train(1, output=Path("whole"))
    module, _, name = place.rpartition(".")
    original, calls = getattr(sys.modules[module], name), []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) > (8 if name == "save" else 2):  # the Trainer calls torch.save four times per checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(ParrotError, match=r"step 3 cannot be written .*No space left.*checkpoint-2;") as caught:
            train(1, "stage1.save_steps=1")
    assert caught.value.exit_code == 1
    run = Path("runs/nano/stage1")
    assert checkpoint.last_good_checkpoint(run)[0].name == "checkpoint-2"
    assert not list((run / "checkpoints").glob(".*"))
    train(1, "stage1.save_steps=1", resume=True)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name])


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_run_that_died_while_it_began_begins_by_resume(train, data, monkeypatch, written):
    """Killed between the first files of its folder: what is there is known as a run, whichever they are."""
    bad = data([*map(record, range(40)), {"conversations": []}], name="bad.json")  # so that skipped.json is written too
    settings = f"data.stage1=[{bad}]", "data.max_bad_fraction=0.1"
    whole = train(1, *settings, output=Path("whole"))
    left = [written]

    def write(*arguments):
        left[0] -= 1
        if left[0] < 0:  # a process that was killed writes nothing more
            raise Stop
        return write_file(*arguments)

    with monkeypatch.context() as patch:
        for place in ("stages", "checkpoint"):
            patch.setattr(f"parrot_train.{place}.write_file", write)
        with pytest.raises(Stop):
            train(1, *settings)
    run = Path("runs/nano/stage1")
    assert len([path for path in run.iterdir() if not path.name.startswith(".")]) == written
    train(1, *settings, resume=True)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name])


@pytest.mark.parametrize("steps", [4, 5])
def test_a_run_that_died_while_publishing_is_published_by_resume(train, monkeypatch, steps):
    """Whether its last step was that of an epoch, which has five, or not."""
    settings = ("stage1.scheduler=constant", *(() if steps == 5 else ("stage1.max_steps=4",)))
    whole = train(1, *settings, output=Path("whole"))
    with monkeypatch.context() as patch:
        patch.setattr("parrot_train.stages.publish_files", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            train(1, *settings)
    run = Path("runs/nano/stage1")
    assert checkpoint.read_run(run)["status"] == "failed"
    assert not (run / "model.safetensors").exists()
    with monkeypatch.context() as patch:
        crash_at(patch, steps)  # no step is trained again
        train(1, *settings, resume=True)
    note = checkpoint.read_run(run)
    assert (note["status"], note["steps"]) == ("finished", steps)
    assert note["loss"] == checkpoint.read_run(whole)["loss"] > 0
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name])


def test_a_full_disk_at_the_end_is_one_line_and_leaves_no_half_a_model(train, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("parrot_train.stages.publish_files", full)
        with pytest.raises(
            ParrotError, match=r"model cannot be written .*No space left.*go on with --resume"
        ) as caught:
            train(1)
    assert caught.value.exit_code == 1
    run = Path("runs/nano/stage1")
    assert not (run / ".model.partial").exists()
    train(1, resume=True)
    assert checkpoint.read_run(run)["status"] == "finished"


def test_without_a_whole_checkpoint_nothing_is_trained_from_the_beginning(train, monkeypatch):
    with monkeypatch.context() as patch:
        crash_at(patch, 3)
        with pytest.raises(Stop):
            train(1, "stage1.save_steps=1")
    run = Path("runs/nano/stage1")
    log = (run / "log.jsonl").read_bytes()
    for path in checkpoint.checkpoints(run):
        (path / "checkpoint.json").write_text("")
    with pytest.raises(InputError, match=r"no checkpoint of this run is whole, the newest is checkpoint-2; bring one"):
        train(1, "stage1.save_steps=1", resume=True)
    assert (run / "log.jsonl").read_bytes() == log


# --- divergence -----------------------------------------------------------------------------------------------------
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(train, monkeypatch):
    original = ParrotTrainer.compute_loss

    def compute_loss(self, *arguments, **options):
        loss = original(self, *arguments, **options)
        return loss * float("nan") if self.state.global_step == 3 else loss

    monkeypatch.setattr(ParrotTrainer, "compute_loss", compute_loss)
    with pytest.raises(DivergedError) as caught:
        train(1, "stage1.save_steps=2")
    message = str(caught.value)
    assert "the loss became nan at step 4" in message
    assert "train.json[" in message
    assert "checkpoint-2" in message
    assert caught.value.exit_code == 1
    run = Path("runs/nano/stage1")
    assert checkpoint.last_good_checkpoint(run)[0].name == "checkpoint-2"
    assert checkpoint.read_run(run)["status"] == "failed"
    assert not (run / "model.safetensors").exists()


def test_a_gradient_that_is_no_number_stops_before_the_weights_change(train, monkeypatch):
    kept = {}

    def poison(self, model, inputs, num_items_in_batch=None):
        loss = ParrotTrainer.__mro__[1].training_step(self, model, inputs, num_items_in_batch)
        if self.state.global_step == 1:
            parameter = self.model.model.multi_modal_projector.linear_1.weight
            parameter.grad[0, 0] = float("inf")
            kept["before"], kept["now"] = parameter.detach().clone(), parameter
        return loss

    monkeypatch.setattr(ParrotTrainer, "training_step", poison)
    with pytest.raises(DivergedError, match=r"the gradient norm became (inf|nan) at step 2"):
        train(1)
    assert torch.equal(kept["before"], kept["now"])
