"""Questions that training never sees: what is measured, against one sample at a time, and that it changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_records import LANGUAGES, held_out_records

from parrot_runtime.errors import InputError
from parrot_train import checkpoint
from parrot_train.config import DataConfig
from parrot_train.data.prepare import prepare
from parrot_train.heldout import HeldOut
from parrot_train.recipe import image_recipe


@pytest.fixture
def asked(data):
    return data(held_out_records(), name="heldout.json")


def test_what_is_measured_is_what_each_sample_says_alone(train, asked, backbones):
    train(1, "stage1.max_steps=1")
    run = train(2, "stage2.max_steps=2", "stage2.precision=fp32")
    model = checkpoint.load_checkpoint(run)
    conversations = prepare(
        [asked],
        DataConfig(max_length=512, workers=0),
        tokenizer=backbones.tokenizer,
        recipe=image_recipe(model.config),
        image_tokens=model.config.image_tokens,
        fallback=run,
    ).conversations
    heldout = HeldOut(conversations, backbones.tokenizer, per_language=5, seed=3)
    assert heldout.counts() == dict.fromkeys(LANGUAGES, 5)
    letters = {letter: conversations_token(backbones, letter) for letter in "ABC"}
    items = json.loads(asked.read_text())
    losses, verdicts = {code: [] for code in LANGUAGES}, {code: [] for code in LANGUAGES}
    for number in heldout.chosen:
        batch, item = conversations.__getitems__([number]), items[number]
        batch = {name: value for name, value in batch.items() if name not in ("languages", "samples")}
        logits = model(**(batch | {"labels": None}), logits_to_keep=0).logits[0].double()
        labels = batch["labels"][0]
        for position in torch.nonzero(labels != -100).flatten().tolist():
            losses[item["language"]].append(-logits[position - 1].log_softmax(0)[labels[position]].item())
        if item["conversations"][-1]["value"] == "B" and number != 5:
            position = torch.nonzero(labels == letters["B"]).flatten()[-1]
            offered = [letters[letter] for letter in ("ABC" if item["language"] == "zh" else "AB")]
            verdicts[item["language"]].append(logits[position - 1][offered].argmax().item() == 1)
    found = measure(heldout, model)
    for code in LANGUAGES:
        assert found[f"eval_loss_{code}"] == pytest.approx(sum(losses[code]) / len(losses[code]), abs=2e-6)
        assert found[f"eval_questions_{code}"] == len(verdicts[code]) > 0
        assert found[f"eval_accuracy_{code}"] == sum(verdicts[code]) / len(verdicts[code])
    assert found["eval_questions"] == sum(map(len, verdicts.values()))
    assert found["eval_loss"] == pytest.approx(
        sum(map(sum, losses.values())) / sum(map(len, losses.values())), abs=2e-6
    )

    shares = []  # of three ranks, the last of which has no batch in the last round
    for rank in range(3):
        measure(heldout, model, lambda sums: shares.append(sums) or sums, rank, 3)
    together = measure(heldout, model, lambda _: sum(shares))
    assert together == pytest.approx(found, rel=1e-6)


def conversations_token(backbones, letter):
    from tokenizers import Tokenizer

    (token,) = Tokenizer.from_file(str(backbones.tokenizer)).encode(letter).ids
    return token


def measure(heldout, model, total=lambda sums: sums, rank=0, ranks=1):
    return heldout.measure(model, total, device=torch.device("cpu"), batch_size=2, rank=rank, ranks=ranks)


def numbers(run):
    """The log without what the clock decides."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "eval_seconds")} for line in lines]


def test_asking_on_the_way_changes_no_bit_and_goes_on_where_it_was_cut(train, asked, monkeypatch):
    """With dropout in the language model, so that a random number drawn by an evaluation would show."""
    from transformers import Qwen2Model

    build = Qwen2Model.__init__

    def with_dropout(self, config):
        config.attention_dropout = 0.1
        build(self, config)

    monkeypatch.setattr(Qwen2Model, "__init__", with_dropout)
    train(1, "stage1.max_steps=1")
    quiet = train(2, "stage2.save_steps=2", output=Path("quiet"))
    settings = (f"data.heldout=[{asked}]", "stage2.eval_steps=2", "stage2.eval_samples=4", "stage2.save_steps=2")
    run = train(2, *settings, output=Path("asked"))
    weights = [load_file(folder / "model.safetensors") for folder in (quiet, run)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())

    log = numbers(run)
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in log if "eval_loss" in line] == [2, 4, 5]
    assert [line for line in log if "loss" in line] == numbers(quiet)
    assert {f"eval_loss_{code}" for code in LANGUAGES} < log[2].keys()
    assert all(line["steps"] == 5 for line in log)
    note = checkpoint.read_run(run)
    assert note["heldout"]["samples"] == dict.fromkeys(LANGUAGES, 4)
    assert note["heldout"]["data"][0]["file"] == str(asked)
    assert note["evaluation"]["eval_loss"] == pytest.approx(log[-1]["eval_loss"], rel=1e-5)

    for name in note["files"]:
        (run / name).unlink()
    (run / "checkpoints" / "checkpoint-5" / "tally.json").write_text("{}")  # damaged: step 4 is the last good one
    checkpoint.write_run(run, note | {"status": "failed"})
    train(2, *settings, output=Path("asked"), resume=True)
    again = load_file(run / "model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights[0].items())
    assert numbers(run) == log


def test_a_model_that_was_asked_learns_on_with_its_encoder_frozen(train, asked, monkeypatch):
    from parrot_train.trainer import ParrotTrainer

    seen, evaluate = [], ParrotTrainer.evaluate

    def watch(self, *arguments, **named):
        result = evaluate(self, *arguments, **named)
        seen.append((self.model.training, self.model.model.vision_tower.training))
        return result

    monkeypatch.setattr(ParrotTrainer, "evaluate", watch)
    train(1, "stage1.max_steps=2", "stage1.eval_steps=1", f"data.heldout=[{asked}]")
    assert seen == [(True, False)] * 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("[]", r"stage1\.eval_steps is 2 and data\.heldout names no files"),
        ("[data/train.json]", r"train\.json: is among the files of stage1 too"),
        ("[none.json]", "no such file"),
    ],
)
def test_nothing_to_ask_or_what_was_learnt_is_refused(train, files, words):
    with pytest.raises(InputError, match=words):
        train(1, "stage1.eval_steps=2", f"data.heldout={files}")
    assert not Path("runs/nano/stage1/run.json").exists()
