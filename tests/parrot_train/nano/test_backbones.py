"""How the shipped backbones are made, on recipes small enough for a test; and what the shipped ones hold."""

import json
import random
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from parrot_runtime.languages import CODES
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_train.nano.backbones import shipped
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.language_backbone import (
    LanguageRecipe,
    batches,
    encode_documents,
    pretrain,
    train_tokenizer,
    weighted_loss,
)
from parrot_train.nano.scenes import CLASSES, COLOURS, KINDS, SIZES, Scene, Thing
from parrot_train.nano.text import documents
from parrot_train.nano.vision_backbone import VisionRecipe, label_patches
from parrot_train.nano.vision_backbone import pretrain as pretrain_vision

TINY = LanguageRecipe(
    vocab_size=700,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=2,
    kv_heads=1,
    tokenizer_documents=60,
    documents=40,
    steps=3,
    batch=4,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TINY)


def test_tokenizer_has_qwens_control_tokens_last_and_every_byte(tokenizer):
    last = [tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    assert last == [697, 698, 699]
    text = "Görselde ne var? 图片里有什么 \U0001f99c ماذا\t\r\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_text_is_in_six_languages_and_only_about_training_scenes():
    turns = list(islice(documents(seed=1), 2000))
    asked = dict.fromkeys(CODES, 0)
    for conversation in turns:
        assert [turn.role for turn in conversation] == ["user", "assistant"] * (len(conversation) // 2)
        question = conversation[0].text.rsplit("\n", 1)[-1]
        for code in CODES:
            asked[code] += question in GRAMMARS[code].object()
    assert min(asked.values()) > 0


def test_documents_do_not_depend_on_the_number_of_workers(tokenizer):
    one, two = (encode_documents(TINY, tokenizer, workers=workers) for workers in (1, 2))
    assert len(one) == TINY.documents
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(one, two, strict=True))


def test_loss_is_that_of_a_plain_weighted_cross_entropy(tokenizer):
    from transformers import Qwen2ForCausalLM

    from parrot_train.nano.language_backbone import model_config

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(model_config(TINY, tokenizer))
    many = LanguageRecipe(**(TINY.__dict__ | {"batch": 1}))
    encoded = encode_documents(TINY, tokenizer, workers=1)[:32]
    ids, mask, weights = next(batches(encoded, many, tokenizer.token_to_id("<|endoftext|>")))
    loss, _ = weighted_loss(model, ids, mask, weights)
    with torch.no_grad():
        logits = model(input_ids=ids).logits.double().numpy()[0, :-1]
    logp = logits - logits.max(-1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    picked = -logp[np.arange(len(logp)), ids[0, 1:].numpy()]
    weight = weights[0, 1:].double().numpy()
    assert loss.item() == pytest.approx((picked * weight).sum() / weight.sum(), abs=1e-5)  # float32 against float64


def test_language_pretraining_writes_a_checkpoint(tmp_path):
    lines = []
    pretrain(TINY, tmp_path, workers=1, report=lines.append)
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float16)}
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2"
    encoder = PromptEncoder(Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    assert encoder.encode([Turn("user", "<|im_end|>")], image_tokens=0).input_ids.tolist().count(encoder.end_id) == 2
    assert any(line.startswith("llm step 2") for line in lines)


def test_patch_labels_follow_the_things():
    thing = Thing("cat", "blue", "large", 4, 0.0, 0.0, 0.0, 0.0)
    phrases, centres = label_patches(Scene(1, "snow", (thing,), 0.0, 0.0), 9)
    grid = phrases.reshape(9, 9)
    expected = (KINDS.index("cat") * len(COLOURS) + COLOURS.index("blue")) * len(SIZES) + SIZES.index("large")
    assert grid[4, 4] == expected
    shown = np.argwhere(grid == expected)
    assert (shown >= 3).all()
    assert (shown < 6).all()  # inside its cell
    assert centres.reshape(9, 9)[4, 4] == 1
    assert centres.sum() == 1


def test_vision_pretraining_writes_a_clip_tower(tmp_path):
    recipe = VisionRecipe(hidden_size=16, intermediate_size=24, layers=2, heads=2, pictures=12, steps=2, batch=4)
    pretrain_vision(recipe, tmp_path, workers=1, report=lambda line: None)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "clip_vision_model"
    assert all(np.isfinite(weight).all() for weight in load_file(tmp_path / "model.safetensors").values())


def test_shipped_tokenizer_knows_the_worlds_words():
    tokenizer = Tokenizer.from_file(str(shipped("llm") / "tokenizer.json"))
    r = random.Random(0)
    for code in CODES:
        g = GRAMMARS[code]
        names = [g.class_member(r.choice(list(CLASSES))), *(g.one(kind) for kind in KINDS)]
        pieces = [len(tokenizer.encode(" " + name).ids) / len(name.encode()) for name in names]
        # No language pays more than a token for two bytes, Arabic and Russian with two bytes a letter included.
        assert np.mean(pieces) < 0.5, code
