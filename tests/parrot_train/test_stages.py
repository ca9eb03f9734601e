"""Both stages, end to end on tiny random backbones: what learns, what does not, what is written, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from parrot_runtime.errors import InputError
from parrot_train import assemble, checkpoint
from parrot_train.data.check import BadRecordsError
from parrot_train.trainer import ParrotTrainer


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


def test_a_stage2_goes_on_from_another_and_keeps_its_mixture(train, monkeypatch, tmp_path):
    train(1)
    first, started = weights(train(2)), []
    taken = assemble.from_run

    def remember(*arguments):
        started.append(taken(*arguments))
        return started[-1]

    monkeypatch.setattr(assemble, "from_run", remember)
    run = train(2, source=Path("runs/nano/stage2"), output=tmp_path / "on")
    note = checkpoint.read_run(run)
    assert note["from"]["run"] == "runs/nano/stage2"
    assert "--from runs/nano/stage2" in note["reproduce"]
    after = weights(run)
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in first.items()}
    changed = {name for name in first if not torch.equal(first[name], after[name])}
    assert changed == {name for name in first if "vision_tower" not in name}


def test_a_stage2_that_goes_on_cannot_change_its_mixture_or_write_over_itself(train, tmp_path):
    train(1)
    train(2)
    source = Path("runs/nano/stage2")
    for setting, words in (
        ("model.experts=4", r"model\.experts is 4 and this stage 2 has 6.*--set model\.experts=6"),
        ("model.alpha=0.5", r"model\.alpha is 0\.5 and this stage 2 has 1\.0"),
        ("model.expert_intermediate_size=7", "expert_intermediate_size is 7 and this stage 2 has 24"),
    ):
        with pytest.raises(InputError, match=words):
            train(2, setting, source=source, output=tmp_path / "on")
    with pytest.raises(InputError, match=r"needs a folder of its own; name it with -o"):
        train(2, source=source, force=True)
    assert checkpoint.read_run(source)["status"] == "finished"


def test_a_checkpoint_on_the_way_is_a_whole_model(train, backbones):
    """With tokenizer and recipe beside its weights, as an export wants them."""
    run = train(1, "stage1.save_steps=2")
    folder = run / "checkpoints" / "checkpoint-4"
    assert checkpoint.checkpoint_fault(folder) is None
    assert checkpoint.load_checkpoint(folder).config.num_experts == 0
    assert (folder / "tokenizer.json").read_bytes() == backbones.tokenizer.read_bytes()
    recipes = [json.loads((place / "parrot_recipe.json").read_text()) for place in (folder, run)]
    assert recipes[0] == recipes[1]


def test_a_finished_run_reads_back(train, backbones):
    train(1)
    run = train(2)
    model = checkpoint.load_checkpoint(run)
    assert model.config.num_experts == 6
    assert (run / "tokenizer.json").read_bytes() == backbones.tokenizer.read_bytes()
    assert checkpoint.newest_finished_run(2) == Path("runs/nano/stage2")
    recipe = json.loads((run / "parrot_recipe.json").read_text())
    assert recipe["image"]["size"] == 16
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


def test_the_first_and_the_last_step_are_always_logged(train):
    run = train(1, "stage1.log_steps=3")
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 3, 5]


def test_a_file_named_twice_is_refused(train):
    with pytest.raises(InputError, match="named twice"):
        train(1, "data.stage1=[data/train.json, data/train.json]")


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
