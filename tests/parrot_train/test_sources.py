"""What a run starts from and goes on from has to be what it was: files, backbones, settings, records."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from parrot_runtime.errors import InputError
from parrot_train import checkpoint
from parrot_train.config_files import load_config
from parrot_train.nano.write import ensure_data
from parrot_train.signals import InterruptedRunError
from parrot_train.stages import StageRequest, run_stage
from parrot_train.trainer import ParrotTrainer


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_stage2_starts_from_a_run_that_is_whole(train, name, damage):
    path = train(1) / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:middle] if damage == "cut" else whole[:middle] + b"\x7f" + whole[middle + 1 :])
    with pytest.raises(InputError, match=f"{name}: (has changed|is not there)"):
        train(2)
    assert not Path("runs/nano/stage2/run.json").exists()


def test_weights_that_are_missing_are_not_made_up(train):
    run = train(1)
    tensors = load_file(run / "model.safetensors")
    del tensors["model.multi_modal_projector.linear_1.bias"]
    save_file(tensors, run / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of the model's weights, first .*linear_1\.bias"):
        checkpoint.load_checkpoint(run)


def test_a_stage2_of_other_backbones_is_refused(train, backbones):
    train(1)
    with pytest.raises(InputError, match="was made from the backbones"):
        train(2, "backbones.llm=Qwen/Qwen2-7B-Instruct")


def test_a_finished_run_is_not_taken_for_another(train):
    run = train(1)
    before = (run / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"stage1\.epochs was 1\.0 and is 9\.0"):
        train(1, "stage1.epochs=9", resume=True)
    train(2)
    with pytest.raises(InputError, match="holds stage 1, not 2"):
        train(2, source=Path("runs/nano/stage2"), output=run, resume=True)
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_force_replaces_what_cannot_be_read(train, text):
    run = train(1)
    (run / "run.json").write_text(text)
    with pytest.raises(InputError):
        train(1)
    train(1, force=True)
    assert checkpoint.read_run(run)["status"] == "finished"


def test_other_records_left_out_are_other_data(train, data, tmp_path, monkeypatch):
    path = data()
    records = json.loads(path.read_text())
    pictures = [path.parent / record["image"] for record in records if "image" in record]
    step = ParrotTrainer.training_step

    def stop_once(self, *arguments, **named):
        if self.state.global_step == 2:
            os.kill(os.getpid(), 15)
        return step(self, *arguments, **named)

    settings = ("data.max_bad_fraction=0.9",)
    one, other = dict.fromkeys(pictures[:2])
    kept = other.read_bytes()
    other.write_bytes(b"no picture")
    with monkeypatch.context() as patch:
        patch.setattr(ParrotTrainer, "training_step", stop_once)
        with pytest.raises(InterruptedRunError):
            train(1, *settings)
    other.write_bytes(kept)
    one.write_bytes(b"no picture")
    with pytest.raises(InputError, match="records left out of"):
        train(1, *settings, resume=True)


def test_the_stage_says_the_precision_not_the_environment(train, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    found = []
    fit = ParrotTrainer.train

    def look(self, **arguments):
        found.append(self.accelerator.mixed_precision)
        return fit(self, **arguments)

    monkeypatch.setattr(ParrotTrainer, "train", look)
    train(1, "stage1.precision=fp32")
    assert found == ["no"]


def test_the_stage_says_whether_a_model_is_compiled(train, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
    found = []
    fit = ParrotTrainer.train

    def look(self, **arguments):
        found.append(str(self.accelerator.state.dynamo_plugin.backend))
        return fit(self, **arguments)

    monkeypatch.setattr(ParrotTrainer, "train", look)
    train(1)
    assert found == ["NO"]


def test_a_nano_world_is_not_drawn_anew_under_a_training(config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [f"nano.{part}_scenes=8" for part in ("stage1", "stage2", "heldout")]
    config = load_config(config_file, [*small, "data.max_length=1000", "stage1.max_steps=1"])
    folder, refused = Path(config.data.nano_folder), []
    fit = ParrotTrainer.train

    def meanwhile(self, **arguments):
        with pytest.raises(InputError, match="a training reads the world there") as caught:
            ensure_data(folder, replace(config.nano, stage1_scenes=9), workers=0)
        refused.append(str(caught.value))
        return fit(self, **arguments)

    monkeypatch.setattr(ParrotTrainer, "train", meanwhile)
    run_stage(StageRequest(1, config))
    assert len(refused) == 1
    ensure_data(folder, replace(config.nano, stage1_scenes=9), workers=0)  # nobody reads it any more


def test_a_file_under_two_names_is_one(train, data):
    path = data()
    with pytest.raises(InputError, match="named twice"):
        train(1, f"data.stage1=[{path}, {path.parent}/../{path.parent.name}/{path.name}]")


def test_stage1_needs_pictures(train, data):
    text_only = [record for record in json.loads(data().read_text()) if "image" not in record]
    path = data(text_only, name="text.json")
    with pytest.raises(InputError, match="none of stage 1's samples has a picture"):
        train(1, f"data.stage1=[{path}]")


def test_held_out_records_left_out_are_named(train, data):
    path = data()
    records = json.loads(path.read_text())
    records[3] = {"id": "broken"}
    heldout = data(records, name="heldout.json")
    run = train(
        1, f"data.heldout=[{heldout}]", "data.max_bad_fraction=0.5", "stage1.eval_steps=5", "stage1.eval_samples=1"
    )
    told = checkpoint.read_run(run)["heldout"]["left_out"]
    assert [(problem["row"], problem["name"]) for problem in told["problems"]] == [(3, "broken")]
