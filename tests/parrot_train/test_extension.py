"""Experts added to a finished model: which ones are copied, what learns, what stays to the bit, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from small_records import FURTHER, further_records, write_data
from wide_heads import write_wide_heads

from parrot_export.bundle import ExportRequest, export
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.manifest import load_manifest
from parrot_runtime.parrot import Parrot
from parrot_train import checkpoint
from parrot_train.cli import main
from parrot_train.config_files import load_config
from parrot_train.data.prepare import prepare
from parrot_train.extension import nearest_experts, routing_shares
from parrot_train.model import trainable
from parrot_train.model.moe import with_more_experts
from parrot_train.recipe import image_recipe
from parrot_train.trainer import ParrotTrainer

LANGUAGES = "extend.languages=[es, de]"


@pytest.fixture
def further(tmp_path):
    return write_data(tmp_path / "data", further_records("es", "de"), name="further.json")


@pytest.fixture
def extend(train, further):
    """Train both stages, then extend; returns the run folder."""

    def call(*overrides, stages=(), **request) -> Path:
        if not Path("runs/nano/stage2").exists():
            train(1)
            train(2, *stages)
        return train("extend", f"data.extend=[{further}]", LANGUAGES, *overrides, **request)

    return call


def weights(run):
    return load_file(run / "model.safetensors")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_new_experts_learn_and_no_other_bit_changes(extend, monkeypatch, precision):
    started, fit = [], ParrotTrainer.train

    def record_start(self, **arguments):
        started.append({name: weight.clone() for name, weight in self.model.state_dict().items() if ".moe." in name})
        return fit(self, **arguments)

    monkeypatch.setattr(ParrotTrainer, "train", record_start)
    run = extend(f"extend.precision={precision}", "extend.epochs=2", "extend.learning_rate=1e-2")
    before, after = weights(Path("runs/nano/stage2")), weights(run)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        if ".moe." not in name:
            assert torch.equal(weight, after[name]), name
            continue
        assert after[name].shape == (8, *weight.shape[1:])
        assert torch.equal(weight, after[name][:6]), name
        for expert in (6, 7):
            assert not torch.equal(started[-1][name][expert], after[name][expert]), (name, expert)
    note = checkpoint.read_run(run)
    copied = note["from"]["copied"]
    for name, weight in before.items():
        if ".experts." in name:
            assert torch.equal(started[-1][name][6:], weight[copied]), name
    assert (note["status"], note["stage"], note["languages"]) == ("finished", "extend", {"es": 12, "de": 12})
    assert note["from"]["languages"] == ["en", "tr", "zh"]
    assert note["trained_parameters"] == 2 * (24 + 24 * 24 + 24 + 24 * 24 + 24)
    assert " parrot-train extend --config run.json --from runs" in note["reproduce"]


def test_copied_router_rows_get_noise_in_their_own_measure(extend):
    extend("extend.max_steps=1")
    model = checkpoint.load_checkpoint(Path("runs/nano/stage2"))
    rows = model.model.moe.router.weight.detach().clone()
    grown = with_more_experts(model, [4] * 400, noise=0.1, seed=3).model.moe.router.weight.detach()
    assert torch.equal(grown[:6], rows)
    relative = (grown[6:] - rows[4]).std() / rows[4].square().mean().sqrt()
    assert relative == pytest.approx(0.1, rel=0.05)  # 9,600 numbers: 1 % at one standard deviation
    again = with_more_experts(model, [4] * 400, noise=0.1, seed=3).model.moe.router.weight
    assert torch.equal(grown, again)
    exact = with_more_experts(model, [4, 1], noise=0.0, seed=3).model.moe.router.weight
    assert torch.equal(exact[6:], rows[[4, 1]])


def test_shares_are_the_mean_routing_of_eq_2_and_3(extend, further):
    extend("extend.max_steps=1")
    source = Path("runs/nano/stage2")
    model = checkpoint.load_checkpoint(source)
    with torch.no_grad():
        model.model.moe.router.weight.mul_(3000)  # random rows route nearly evenly, and would hide a mistake
    config = load_config("nano", ["data.max_length=128", "data.image_cache=pixels", "data.workers=0"])
    tokens = model.config.image_tokens
    conversations = prepare(
        [further],
        config.data,
        tokenizer=source / "tokenizer.json",
        recipe=image_recipe(model.config),
        image_tokens=tokens,
        fallback=source,
    ).conversations
    shares = routing_shares(model, conversations, ("es", "de"))
    rows = model.model.moe.router.weight.detach().double().numpy()
    words = model.get_input_embeddings().weight.detach().double().numpy()
    for code in ("es", "de"):
        wanted = []
        for number in np.flatnonzero(conversations.languages == conversations.language_codes.index(code)):
            batch = conversations.__getitems__([number])
            if not len(batch["pixel_values"]):
                continue
            with torch.no_grad():
                query = model.get_image_features(batch["pixel_values"])[0, 0].double().numpy()
            text = words[batch["input_ids"][0][batch["prompt_mask"][0]].numpy()]
            scores = np.exp(text @ query / np.sqrt(len(query)))
            logits = rows @ (scores / scores.sum() @ text)
            wanted.append(np.exp(logits) / np.exp(logits).sum())
        assert len(wanted) >= 9
        np.testing.assert_allclose(shares[code], np.mean(wanted, axis=0), rtol=1e-4)  # float32 against float64
        assert shares[code].max() > 0.25


def test_the_run_copies_the_expert_with_the_greatest_share(extend):
    note = checkpoint.read_run(extend("extend.max_steps=1"))
    shares = [np.array(note["from"]["shares"][code]) for code in ("es", "de")]
    for share, copied in zip(shares, note["from"]["copied"], strict=True):
        assert share.sum() == pytest.approx(1, abs=6e-4)  # four digits are written
        assert share[copied] == share.max()


def test_which_experts_are_copied_where_there_are_more_or_fewer_than_languages():
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.0, 0.9, 0.1]])
    assert nearest_experts(shares, 3) == [0, 2, 1]
    assert nearest_experts(shares, 5) == [0, 2, 1, 1, 1]  # then the second nearest of the first two
    assert nearest_experts(shares, 11) == [0, 2, 1, 1, 1, 2, 2, 0, 0, 0, 2]  # after the last comes the first again
    assert nearest_experts(shares, 1) == [1]  # the mean over all three is [0.2, 0.467, 0.333]
    assert nearest_experts(shares, 2) == [1, 2]  # the first and third language share one: [0.25, 0.6, 0.15]


def test_experts_are_independent_of_languages(extend):
    """Three experts for three languages and English data, one more for two: four."""
    run = extend("extend.experts=1", stages=["model.experts=3"])
    assert checkpoint.load_checkpoint(run).config.num_experts == 4
    more = extend("extend.experts=5", output=Path("more"))
    assert checkpoint.load_checkpoint(more).config.num_experts == 8
    before, after = weights(Path("runs/nano/stage2")), weights(more)
    assert all(torch.equal(before[name], after[name][:3]) for name in before if ".moe." in name)


def test_an_extended_model_is_extended_again_and_trained_on(extend, train, tmp_path):
    first = extend()
    third = write_data(tmp_path / "data", [item | {"language": "ja"} for item in further_records("es")], name="j.json")
    again = train("extend", f"data.extend=[{third}]", "extend.languages=[ja]", source=first, output=Path("nine"))
    assert checkpoint.load_checkpoint(again).config.num_experts == 9
    assert all(torch.equal(w, weights(again)[n][:8]) for n, w in weights(first).items() if ".moe." in n)
    note = checkpoint.read_run(again)
    assert note["from"]["languages"] == ["de", "en", "es", "tr", "zh"]
    on = train(2, "model.experts=9", source=again, output=Path("on"))
    assert checkpoint.read_run(on)["from"]["languages"] == ["de", "en", "es", "ja", "tr", "zh"]
    assert not torch.equal(weights(on)["model.moe.router.weight"][:6], weights(first)["model.moe.router.weight"][:6])


def test_a_run_that_changed_an_old_expert_is_not_published(extend, monkeypatch):
    extend("extend.max_steps=1", output=Path("first"))
    learning = trainable.set_trainable
    monkeypatch.setattr(trainable, "set_trainable", lambda model, stage, *, kept: learning(model, stage))
    with pytest.raises(ParrotError, match=r"changed experts .* model\.moe\..*; nothing was published"):
        extend()
    run = Path("runs/nano/extend")
    assert checkpoint.read_run(run)["status"] == "failed"
    assert not (run / "model.safetensors").exists()


class Stop(Exception):
    """Stands for a crash."""


def test_a_resumed_extension_ends_with_the_same_bits(extend, monkeypatch):
    settings = ("extend.save_steps=2", "extend.epochs=2")
    whole, original = extend(*settings), ParrotTrainer.training_step

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step + 1 == 4:
            raise Stop
        return original(self, model, inputs, num_items_in_batch)

    with monkeypatch.context() as patch:
        patch.setattr(ParrotTrainer, "training_step", training_step)
        with pytest.raises(Stop):
            extend(*settings, output=Path("again"))
    resumed = extend(*settings, output=Path("again"), resume=True)
    assert all(torch.equal(weight, weights(resumed)[name]) for name, weight in weights(whole).items())


@pytest.fixture
def command(extend, further, config_file):
    extend("extend.max_steps=1")

    def call(*arguments):
        return CliRunner().invoke(main, ["extend", "--config", config_file, "-o", "mine", *arguments])

    return call


def test_errors_are_one_line_with_code_2(command, further, tmp_path):
    spanish = str(write_data(tmp_path / "data", further_records("es"), name="spanish.json"))
    blind = [item for item in further_records("es", count=40) if "image" not in item]
    blind = str(write_data(tmp_path / "data", blind, name="blind.json"))
    data = ("--data", str(further))
    for arguments, words in (
        ((*data,), "no language is given; name those to add"),
        ((*data, "--languages", "es,xx"), "languages is 'xx'; expected ISO 639-1 codes"),
        ((*data, "--languages", "es,de,es"), "languages is 'es'; expected each language once"),
        ((*data, "--languages", "es,tr"), "runs/nano/stage2: has 'tr' already, among en, tr, zh"),
        (("--data", spanish, "--languages", "es,de"), "no sample with a picture in 'de'"),
        (("--data", blind, "--languages", "es"), "no sample with a picture in 'es'"),
        (("--languages", "es,ko"), "the nano world does not speak 'ko'"),
        ((*data, "--languages", "es", "--from", "runs/nano/stage1"), "starts from a finished stage 2"),
        ((*data, "--languages", "es", "--from", "nowhere"), "there is none"),
        ((*data, "--languages", "es", "-o", "runs/nano/stage2"), "needs a folder of its own"),
        ((*data, "--languages", "es", "--set", "extend.weight_decay=0.1"), "decay would change the old experts too"),
    ):
        result = command(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
    assert command(*data, "--languages", "es", "--experts", "0").exit_code == 2


def test_a_model_without_experts_cannot_be_extended(train, further):
    train(1)
    train(2, "model.experts=0")
    with pytest.raises(InputError, match=r"model\.experts was 0"):
        train("extend", f"data.extend=[{further}]", LANGUAGES)


def test_the_command_extends_and_says_so(command, further):
    result = command("--data", str(further), "--languages", "DE, es", "--experts", "3", "--json")
    assert result.exit_code == 0, result.output
    note = json.loads(result.stdout)
    assert note["settings"]["extend"]["languages"] == ["de", "es"]
    assert len(note["from"]["copied"]) == 3
    assert command("--data", str(further), "--languages", "de").exit_code == 2  # it is there


@pytest.fixture
def wide_heads(backbones, tmp_path):
    """A language model with attention heads of the width that onnxruntime can export."""
    return f"backbones.llm={write_wide_heads(tmp_path / 'llm', backbones.tokenizer)}"


def test_what_was_extended_is_exported_and_answers(train, further, wide_heads, tmp_path, monkeypatch):
    monkeypatch.setattr("parrot_export.choice.installed", lambda: ())
    train(1, wide_heads)
    train(2, wide_heads)
    run = train("extend", f"data.extend=[{further}]", LANGUAGES, wide_heads)
    folder, _ = export(ExportRequest(checkpoint=run, output=tmp_path / "bundle", precision="fp32", target="cpu"))
    manifest = load_manifest(folder)
    assert manifest.model.experts == 8
    assert manifest.languages == ("en", "zh", "pt", "ar", "tr", "ru", "de", "es")
    assert manifest.verification["status"] == "passed"
    card = (folder / "README.md").read_text("utf-8")
    assert "Spanish" in card
    assert "| de | 12 |" in card
    parrot = Parrot.load(folder, threads=1)
    answer = parrot.ask(tmp_path / "data" / "pictures" / "3.png", FURTHER["es"][0], max_new_tokens=3)
    assert len(answer.routing[0]) == 8
    assert sum(answer.routing[0]) == pytest.approx(1, abs=1e-5)
