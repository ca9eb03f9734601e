"""TensorBoard's files read back with its own reader, Weights & Biases' offline, and nothing unasked."""

import importlib.util
import json
from pathlib import Path

import pytest

from parrot_runtime.errors import InputError
from parrot_train import checkpoint, reports

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs TensorBoard: pip install tensorboard"
)
needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb: pip install wandb")


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@needs_tensorboard
def test_tensorboard_has_every_number_of_the_log(train, data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(1, "stage1.max_steps=1")
    asked = f"data.heldout=[{data(name='heldout.json')}]"
    settings = ("stage2.report_to=[tensorboard]", "stage2.eval_steps=2", asked, "stage2.save_steps=2")
    run = train(2, *settings, "stage2.max_steps=4")

    def scalars():
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        return {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}

    def expected():
        for line in log(run):
            part = "train" if "loss" in line else "eval"
            for name, value in line.items():
                if name not in ("step", "steps") and not (part == "eval" and name == "epoch"):
                    yield f"{part}/{name.removeprefix('eval_')}", line["step"], value

    found = scalars()
    wanted = list(expected())
    names = {name for name, _, _ in wanted}
    assert {"train/grad_norm", "train/routing_tr_5", "train/routing_entropy_tr", "train/answer_tokens_total_tr"} < names
    assert {"train/tokens_per_second", "train/loss_tr", "eval/loss_tr"} < names
    for name, step, value in wanted:
        assert found[name, step] == pytest.approx(value, rel=1e-5, abs=1e-7), (name, step)  # float32, six digits

    # A run that goes on from step 2 shows its steps once.
    note = checkpoint.read_run(run)
    for name in note["files"]:
        (run / name).unlink()
    (run / "checkpoints" / "checkpoint-4" / "tally.json").unlink()
    checkpoint.write_run(run, note | {"status": "failed"})
    train(2, *settings, "stage2.max_steps=4", resume=True)
    found = scalars()
    for name, step, value in expected():
        assert found[name, step] == pytest.approx(value, rel=1e-5, abs=1e-7), (name, step)

    train(2, "stage2.max_steps=1", force=True)
    assert not (run / "tensorboard").exists()


@needs_wandb
def test_wandb_stays_offline_and_has_the_numbers(train, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged, settings, take = [], [], wandb.Run.log

    def keep(self, numbers, *arguments, **named):
        logged.append(numbers)
        settings.append((self.offline, self.project))
        return take(self, numbers, *arguments, **named)

    monkeypatch.setattr(wandb.Run, "log", keep)
    run = train(1, "stage1.max_steps=2", "stage1.report_to=[wandb]")
    assert settings
    assert set(settings) == {(True, "parrot")}
    assert wandb.run is None  # closed
    (folder,) = (run / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))
    for line in log(run):
        (found,) = [each for each in logged if each.get("train/global_step") == line["step"] and "train/loss" in each]
        for name in line.keys() - {"step", "steps"}:
            assert found[f"train/{name}"] == pytest.approx(line[name], rel=1e-5), name


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_what_is_not_installed_is_named_before_anything_is_done(train, monkeypatch, name):
    monkeypatch.setattr(reports.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=rf"stage1\.report_to names {name}.*pip install 'parrot-edge\[{name}\]'"):
        train(1, f"stage1.report_to=[{name}]")
    assert not Path("runs/nano/stage1/run.json").exists()


def test_nothing_is_written_unasked(train):
    run = train(1, "stage1.max_steps=1")
    left = {path.name for path in run.iterdir()} - checkpoint.read_run(run)["files"].keys()
    assert left == {"run.json", "log.jsonl", "config.yaml", "checkpoints", ".lock"}
