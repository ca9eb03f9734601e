"""Both stages, end to end on tiny random backbones: what learns, what does not, what is written, what is refused."""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from parrot_runtime.errors import InputError, ParrotError
from parrot_train import checkpoint
from parrot_train.config import load_config
from parrot_train.data.check import BadRecordsError
from parrot_train.signals import InterruptedRunError
from parrot_train.stages import StageRequest, run_stage
from parrot_train.trainer import DivergedError, ParrotTrainer


@pytest.fixture
def train(config_file, data, tmp_path, monkeypatch):
    """Train a stage in ``tmp_path/runs/nano/stageN`` with 40 records; returns the run folder."""
    monkeypatch.chdir(tmp_path)
    path = data()

    def call(stage, *overrides, **request) -> Path:
        files = [f"data.stage{number}=[{path}]" for number in (1, 2)]
        config = load_config(config_file, [*files, *overrides])
        asked = StageRequest(stage, config, **request)
        run_stage(asked)
        return asked.run

    return call


def weights(run):
    return load_file(run / "model.safetensors")


def backbone_weights(backbones):
    found = {
        f"model.vision_tower.{name}": tensor
        for name, tensor in load_file(backbones.vision / "model.safetensors").items()
    }
    for name, tensor in load_file(backbones.llm / "model.safetensors").items():
        found[name.replace("model.", "model.language_model.", 1)] = tensor
    return found


def test_stage1_trains_the_projector_and_leaves_every_other_bit(train, backbones):
    run = train(1)
    result, origin = weights(run), backbone_weights(backbones)
    assert not any("moe" in name for name in result)
    projector = {name for name in result if "multi_modal_projector" in name}
    assert len(projector) == 4
    for name in result.keys() - projector:
        assert torch.equal(result[name], origin[name]), name
    assert len(result.keys() - projector) > 40
    note = checkpoint.read_run(run)
    assert (note["status"], note["stage"], note["steps"]) == ("finished", 1, 5)
    assert note["trained_parameters"] == 12 * 24 + 24 + 24 * 24 + 24


def test_stage2_trains_all_but_the_vision_encoder(train):
    first, second = train(1), train(2)
    before, after = weights(first), weights(second)
    for name in before:
        if "vision_tower" in name:
            assert torch.equal(before[name], after[name]), name
        else:
            assert not torch.equal(before[name], after[name]), name
    moe = {name: tensor for name, tensor in after.items() if ".moe." in name}
    assert moe["model.moe.router.weight"].shape == (6, 24)
    assert moe["model.moe.experts.fc1.weight"].shape == (6, 24, 24)  # the experts are as wide as the language model
    assert after["model.moe.router.weight"].dtype == torch.float32


def test_the_mixture_starts_random_and_seeded_and_learns(train, monkeypatch):
    started = []
    fit = ParrotTrainer.train

    def record_start(self, **arguments):
        started.append({name: weight.clone() for name, weight in self.model.state_dict().items() if ".moe." in name})
        return fit(self, **arguments)

    monkeypatch.setattr(ParrotTrainer, "train", record_start)
    train(1)
    runs = [train(2, f"stage2.seed={seed}", output=Path(f"out{place}")) for place, seed in enumerate((1, 1, 2))]
    _, one, same, other = started
    for name in one:
        assert torch.equal(one[name], same[name])
        if "bias" not in name:
            assert not torch.equal(one[name], other[name])
            assert 0.015 < one[name].std() < 0.025  # normal, 0.02
            assert len({expert.sum().item() for expert in one[name]}) == len(one[name])
        assert not torch.equal(one[name], weights(runs[0])[name]), f"{name} did not learn"


def test_the_same_settings_give_the_same_bits(train):
    one, two = train(1, output=Path("one")), train(1, output=Path("two"))
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(two)[name])


def test_decoding_in_loading_workers_gives_the_same_bits_as_the_pixel_cache(train):
    cached = train(1, output=Path("cached"))
    loaded = train(1, "data.image_cache=none", "data.workers=1", output=Path("loaded"))
    for name, tensor in weights(cached).items():
        assert torch.equal(tensor, weights(loaded)[name]), name


def test_plain_llava_has_no_mixture_in_stage2(train):
    train(1)
    run = train(2, "model.experts=0")
    assert not any("moe" in name for name in weights(run))


def test_a_finished_run_reads_back(train, backbones):
    train(1)
    run = train(2)
    model = checkpoint.load_checkpoint(run)
    assert model.config.num_experts == 6
    assert checkpoint.load_recipe(run).size == 16
    assert (run / "tokenizer.json").read_bytes() == backbones.tokenizer.read_bytes()
    assert checkpoint.newest_finished_run(2) == Path("runs/nano/stage2")
    recipe = json.loads((run / "parrot_recipe.json").read_text())
    assert recipe["prompt"] == {"system": "You are a helpful assistant.", "image_first": True}
    assert recipe["training"]["settings"]["stage2"]["global_batch"] == 8
    files = checkpoint.read_run(run)["files"]
    assert set(files) >= {"config.json", "model.safetensors", "tokenizer.json", "parrot_recipe.json"}
    assert not list(run.glob("*.bin"))
    assert not (run / ".model.partial").exists()


def test_the_log_has_a_loss_per_language(train):
    train(1)
    lines = [json.loads(line) for line in (train(2) / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert line["loss"] > 0
        assert line["tokens_per_second"] > 0
        named = [line[key] for key in ("loss_en", "loss_zh", "loss_tr") if key in line]
        assert min(named) - 1e-4 <= line["loss"] <= max(named) + 1e-4  # it is their weighted mean; six digits are kept


def test_the_loss_is_the_mean_over_answer_tokens_whatever_the_micro_batch(train):
    """Accumulated over micro-batches of unequal token counts, a step's loss is that of the whole batch."""
    losses = []
    for micro in (2, 4, 8):
        run = train(
            1,
            "stage1.precision=fp32",
            "stage1.max_steps=1",
            "stage1.global_batch=40",
            f"stage1.micro_batch={micro}",
            output=Path(f"micro{micro}"),
        )
        losses.append(json.loads((run / "log.jsonl").read_text())["loss"])
    # 40 records, so the first step sees all of them in any order; float32 sums in three orders.
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_learning_rates_per_part(train, monkeypatch):
    groups = []
    build = ParrotTrainer.create_optimizer

    def keep(self, model=None):
        optimizer = build(self, model)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for group in optimizer.param_groups:
            groups.extend(
                (
                    names[id(parameter)],
                    group["initial_lr"] if "initial_lr" in group else group["lr"],
                    group["weight_decay"],
                )
                for parameter in group["params"]
            )
        return optimizer

    train(1)
    monkeypatch.setattr(ParrotTrainer, "create_optimizer", keep)
    train(
        2,
        "stage2.projector_learning_rate=0.5",
        "stage2.moe_learning_rate=0.25",
        "stage2.weight_decay=0.1",
        "stage2.max_steps=1",
    )
    for name, rate, decay in groups:
        part = 0.5 if "projector" in name else 0.25 if ".moe." in name else 1e-3
        assert rate == part, name
        assert decay == (0.0 if "bias" in name or "norm" in name else 0.1), name
    assert len(groups) == len({name for name, _, _ in groups}) > 20


# --- folders --------------------------------------------------------------------------------------------------------
def test_stage2_without_stage1_names_the_missed_step(train):
    with pytest.raises(InputError, match="run `parrot-train stage1` first"):
        train(2)
    assert not Path("runs/nano/stage2").exists()


def test_a_finished_run_needs_force(train):
    run = train(1)
    before = (run / "run.json").read_bytes()
    with pytest.raises(InputError, match="--force"):
        train(1)
    assert (run / "run.json").read_bytes() == before
    train(1, resume=True)  # there is nothing left to do
    assert (run / "run.json").read_bytes() == before
    train(1, "stage1.max_steps=1", force=True)
    assert checkpoint.read_run(run)["steps"] == 1
    assert len((run / "log.jsonl").read_text().splitlines()) == 1


def test_a_folder_with_other_things_is_left_alone(train, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(InputError, match=r"thesis\.txt"):
            train(1, output=folder, force=force)


def test_two_at_once_are_refused(train):
    with checkpoint.locked(Path("runs/nano/stage1")), pytest.raises(InputError, match="another training"):
        train(1)


def test_bad_records_stop_the_run_before_it_begins(train, data, tmp_path):
    path = tmp_path / "data" / "train.json"
    items = json.loads(path.read_text())
    items[7]["conversations"][1]["value"] = ""
    path.write_text(json.dumps(items))
    with pytest.raises(BadRecordsError, match=r"train\.json\[7\]"):
        train(1)
    assert not Path("runs/nano/stage1/run.json").exists()
    run = train(1, "data.max_bad_fraction=0.1")
    assert json.loads((run / "skipped.json").read_text())["problems"][0]["row"] == 7
    assert (checkpoint.read_run(run)["samples"], checkpoint.read_run(run)["skipped"]) == (39, 1)


def test_force_with_bad_records_keeps_the_old_run(train, tmp_path):
    run = train(1)
    (tmp_path / "data" / "pictures" / "3.png").write_bytes(b"")
    with pytest.raises(BadRecordsError):
        train(1, force=True)
    assert checkpoint.read_run(run)["status"] == "finished"
    assert (run / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("backbones.vision=/nowhere/at/all", "backbones.vision"),
        ("backbones.llm={vision}", "backbones.llm"),
        ("data.stage1=[none.json]", "no such file"),
    ],
)
def test_missing_inputs_are_one_line(train, backbones, override, words):
    with pytest.raises(InputError) as caught:
        train(1, override.format(vision=backbones.vision))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- resume ---------------------------------------------------------------------------------------------------------
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
    train(1, "stage1.log_steps=3", "stage1.save_steps=2", resume=True)  # these change nothing of the result


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


def test_a_run_that_died_while_publishing_is_published_by_resume(train, monkeypatch):
    whole = train(1, output=Path("whole"))
    with monkeypatch.context() as patch:
        patch.setattr("parrot_train.stages.publish_files", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            train(1)
    run = Path("runs/nano/stage1")
    assert checkpoint.read_run(run)["status"] == "failed"
    assert not (run / "model.safetensors").exists()
    with monkeypatch.context() as patch:
        crash_at(patch, 5)  # no step is trained again
        train(1, resume=True)
    note = checkpoint.read_run(run)
    assert (note["status"], note["steps"]) == ("finished", 5)
    assert note["loss"] == checkpoint.read_run(whole)["loss"] > 0
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name])


def test_the_first_and_the_last_step_are_always_logged(train):
    run = train(1, "stage1.log_steps=3")
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 3, 5]


def test_a_file_named_twice_is_refused(train):
    with pytest.raises(InputError, match="named twice"):
        train(1, "data.stage1=[data/train.json, data/train.json]")


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


# --- the paper's other settings -------------------------------------------------------------------------------------
def test_gradient_checkpointing_changes_no_bit(train):
    train(1)
    runs = [
        train(2, f"stage2.gradient_checkpointing={wanted}", "stage2.precision=fp32", output=Path(f"run-{wanted}"))
        for wanted in ("false", "true")
    ]
    one, two = map(weights, runs)
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_follows_the_schedule(train, schedule):
    run = train(1, f"stage1.scheduler={schedule}", "stage1.warmup_ratio=0.2", "stage1.epochs=2")
    rates = [json.loads(line)["learning_rate"] for line in (run / "log.jsonl").read_text().splitlines()]
    # Two steps of warm-up (0.2 of 10); the rate logged is the one the step used.
    steps = np.arange(10)
    fall = {
        "cosine": 0.5 * (1 + np.cos(np.pi * (steps - 2) / 8)),
        "linear": 1 - (steps - 2) / 8,
        "constant": np.ones(10),
    }[schedule]
    expected = 1e-3 * np.where(steps < 2, steps / 2, fall)
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-12)  # six digits are logged
