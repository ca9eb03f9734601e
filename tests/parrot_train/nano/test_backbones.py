"""How the shipped backbones are made, on recipes small enough for a test; and what the shipped ones hold."""

import json
import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from parrot_runtime.errors import ParrotError
from parrot_runtime.languages import CODES
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_train.nano import language_batches
from parrot_train.nano.backbones import shipped
from parrot_train.nano.drills import LISTS_ASKED, VALUES_ASKED, Drills
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.language_backbone import (
    Drilling,
    LanguageRecipe,
    Reading,
    model_config,
    predictions,
    pretrain,
    train_tokenizer,
)
from parrot_train.nano.language_batches import answer_weights, batches, encode_documents
from parrot_train.nano.optimizers import Pace, Rates
from parrot_train.nano.scenes import CLASSES, COLOURS, KINDS, SIZES, Scene, Thing
from parrot_train.nano.text import CHATTING, LESSON_QUESTIONS, READING, Mix, documents, lessons
from parrot_train.nano.vision_backbone import Drawn, View, VisionRecipe, augmented, label_patches
from parrot_train.nano.vision_backbone import pretrain as pretrain_vision

RATES = Rates(1e-3, 0.01, 2)
TINY = LanguageRecipe(
    vocab_size=700,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=2,
    kv_heads=1,
    tokenizer_documents=60,
    phases=(
        Reading(READING, 40, 4, 3, Rates(1e-3, None, 2)),
        Reading(CHATTING, 40, 4, 6, RATES, length_power=-0.5, reviewed=(2, 10)),
    ),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TINY)


def test_lessons_keep_to_one_kind_of_question():
    for turns in islice(lessons(("colour",), seed=1), 50):
        answers = [turn.text for turn in turns[1::2]]
        assert len(answers) == LESSON_QUESTIONS
        assert set(answers) <= set("ABCD")
    answers = [turns[1].text for turns in islice(lessons(("is_colour",), seed=1), 200)]
    assert {"A", "B"} < set(answers)
    six = [GRAMMARS[code] for code in CODES]
    assert {grammar.sentence(word) for grammar in six for word in grammar.yes_no("is_colour")} < set(answers)
    only = Mix(questions=1, lessons=1.0, subjects=("position",))
    assert list(islice(documents(only, seed=3), 5)) == list(islice(lessons(("position",), seed=3), 5))


def test_tokenizer_has_qwens_control_tokens_last_and_every_byte(tokenizer):
    last = [tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    assert last == [697, 698, 699]
    text = "Görselde ne var? 图片里有什么 \U0001f99c ماذا\t\r\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_text_is_in_six_languages_and_only_about_training_scenes():
    turns = list(islice(documents(CHATTING, seed=1), 2000))
    asked = dict.fromkeys(CODES, 0)
    for conversation in turns:
        assert [turn.role for turn in conversation] == ["user", "assistant"] * (len(conversation) // 2)
        question = conversation[0].text.rsplit("\n", 1)[-1]
        for code in CODES:
            asked[code] += question in GRAMMARS[code].object()
    assert min(asked.values()) > 0


def test_documents_do_not_depend_on_the_number_of_workers(tokenizer, monkeypatch):
    monkeypatch.setattr(language_batches, "PART", 20)
    one, two = (encode_documents(CHATTING, 210, tokenizer, seed=1, workers=workers) for workers in (1, 2))
    assert len(one) == len(two) == 210
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(one, two, strict=True))


def test_a_token_weighs_by_the_length_of_its_answer():
    supervised = np.array([0, 1, 0, 0, 1, 1, 1, 1, 0, 1], bool)
    assert answer_weights(supervised, -0.5).tolist() == [0, 1, 0, 0, 0.5, 0.5, 0.5, 0.5, 0, 1]
    assert answer_weights(supervised, 0.0).tolist() == supervised.tolist()
    assert not answer_weights(np.zeros(3, bool), -0.5).any()


def test_a_batch_predicts_all_answers_and_some_of_the_rest(tokenizer):
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(model_config(TINY, tokenizer)).eval()
    encoded = encode_documents(CHATTING, 40, tokenizer, seed=1, workers=1)
    batch = next(batches(encoded, 4, tokenizer.token_to_id("<|endoftext|>"), seed=1, power=-0.5))
    rows = {tuple(ids.tolist()): supervised for ids, supervised in encoded}
    length = batch.ids.shape[1]
    assert length % 16 == 0
    assert len(batch.predicted) % 256 == 0
    with torch.no_grad():
        logits, targets = predictions(model, batch)
        alone = model(input_ids=batch.ids[:1]).logits[0]
    answers = batch.predicted[batch.answers]
    expected = []
    for row in range(4):
        tokens = batch.ids[row][batch.mask[row]]
        expected += (np.flatnonzero(rows[tuple(tokens.tolist())]) + row * length).tolist()
    assert sorted(answers.tolist()) == expected
    assert len(set(batch.predicted.tolist())) == len(batch.predicted)
    assert batch.mask.view(-1)[batch.predicted].all()
    assert (targets == batch.ids.view(-1)[batch.predicted]).all()
    first = batch.predicted < length
    torch.testing.assert_close(logits[first], alone[batch.predicted[first] - 1], rtol=1e-4, atol=1e-5)


def _options(tokens: list[int], tokenizer: Tokenizer) -> tuple[dict[int, list[int]], list[int]]:
    """The lettered list that ``tokens`` begin with, value by letter, and what follows it."""
    line, dot = tokenizer.encode("\n").ids[0], tokenizer.encode(".").ids[0]
    options = {}
    while len(tokens) > 1 and tokens[1] == dot:
        end = tokens.index(line)
        options[tokens[0]], tokens = tokens[2:end], tokens[end + 1 :]
    return options, tokens


@pytest.mark.parametrize("level", [0, 1, 2])
def test_first_drills_ask_for_the_letter_of_a_listed_value(tokenizer, level):
    drills, again = Drills(tokenizer, level), Drills(tokenizer, level)
    gap = len(tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n").ids) if level == 2 else 0
    for _ in range(20):
        ids, supervised = drills.drill(level)
        assert (ids == again.drill(level)[0]).all()
        tokens = ids.tolist()
        options, _ = _options(tokens, tokenizer)
        assert len({tuple(value) for value in options.values()}) == len(options) >= 2
        at = np.flatnonzero(supervised)
        assert len(at) == VALUES_ASKED
        for position in at:
            value = options[tokens[position]]
            assert tokens[position - gap - len(value) : position - gap] == value


@pytest.mark.parametrize("level", [3, 4, 10, 11, 12, 13])
def test_later_drills_are_answered_by_what_was_told(tokenizer, level):
    drills, lettered = Drills(tokenizer, level), level in (4, 10, 11)
    semicolon, line = (tokenizer.encode(text).ids[0] for text in (";", "\n"))
    drills._separators = [[semicolon]]
    turns = [tokenizer.encode(f"<|im_end|>\n<|im_start|>{role}\n").ids for role in ("assistant", "user")]
    yes, no = (tokenizer.encode(word).ids[0] for word in ("Yes", "No"))
    answers = []
    for _ in range(20):
        ids, supervised = drills.drill(level)
        tokens = ids.tolist()
        start = len(tokens) - tokens[::-1].index(semicolon)
        told, piece = [], []
        for token in tokens[1:start]:
            if token == semicolon:
                told, piece = [*told, piece], []
            else:
                piece.append(token)
        at = np.flatnonzero(supervised)
        assert len(at) == (LISTS_ASKED if lettered else VALUES_ASKED)
        for position in at:
            question = tokens[start : position - len(turns[0])]
            assert tokens[position - len(turns[0]) : position] == turns[0]
            start = position + 1 + len(turns[1])
            answers.append(tokens[position])
            if not lettered:
                assert tokens[position] == (yes if question in told else no)
            else:
                key, rest = question[: question.index(line)], question[question.index(line) + 1 :]
                options, rest = _options(rest, tokenizer)
                assert not rest
                assert [letter for letter, value in options.items() if [*key, *value] in told] == [tokens[position]]
    assert len(set(answers)) == (4 if lettered else 2)


@pytest.mark.parametrize("level", [14, 15, 16])
def test_drills_of_counting_are_answered_by_how_often_a_value_came(tokenizer, level):
    """A value never begins as another does, so its first token is what is counted."""
    drills = Drills(tokenizer, level)
    semicolon, line = (tokenizer.encode(text).ids[0] for text in (";", "\n"))
    drills._separators = [[semicolon]]
    digits = {tokenizer.encode(str(number)).ids[0]: number for number in range(1, 7)}
    gap, seen = len(tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n").ids), []
    for _ in range(30):
        ids, supervised = drills.drill(level)
        tokens, at = ids.tolist(), np.flatnonzero(supervised)
        assert len(at) == (LISTS_ASKED if level == 16 else VALUES_ASKED)
        start = len(tokens) - tokens[::-1].index(semicolon)
        told, turn = tokens[1:start], len(tokenizer.encode("<|im_end|>\n<|im_start|>user\n").ids)
        for position in at:
            question, answer = tokens[start : position - gap], tokens[position]
            if level == 16:
                options, _ = _options(question[question.index(line) + 1 :], tokenizer)
                question, (answer,) = question[: question.index(line)], options[answer]
            counts = [told.count(token) for token in question]
            assert digits[answer] in counts
            if level == 14:
                assert counts == [digits[answer]]
            seen.append(digits[answer])
            start = position + 1 + turn
    assert set(seen) == {1, 2, 3, 4, 5}


def test_lower_levels_are_reviewed(tokenizer):
    drills, letters = Drills(tokenizer, 1), {tokenizer.encode(letter).ids[0] for letter in "ABCD"}
    for review, low, high in ((0.0, 0, 0), (0.5, 30, 170)):
        drawn = [drills.drill(13, review) for _ in range(200)]
        lettered = sum(set(ids[supervised].tolist()) <= letters for ids, supervised in drawn)
        assert low <= lettered <= high


@pytest.mark.parametrize("level", [5, 6, 7, 8, 9])
def test_facts_are_asked_for_by_their_keys(tokenizer, level):
    drills = Drills(tokenizer, level)
    gap = 0 if level == 5 else len(tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n").ids)
    different = set()
    for _ in range(60):
        ids, supervised = drills.drill(level)
        tokens, at = ids.tolist(), np.flatnonzero(supervised)
        assert len(at) == VALUES_ASKED
        told = tokens[: at[0] - gap - 1]
        for position in at:
            key, value = tokens[position - gap - 1], tokens[position]
            different.add(value)
            assert told.count(value) == 1
            # Told side by side, or around one token that stands between every key and value.
            assert abs(told.index(key) - told.index(value)) <= 2
    assert len(different) == 16 if level < 7 else len(different) > 60


def test_drills_that_are_not_mastered_stop_the_pretraining(tmp_path):
    hard = replace(TINY, phases=(Drilling(CHATTING, 20, (0,), RATES, batch=4, longest=25),))
    with pytest.raises(ParrotError, match="level 0 of the drills was not mastered in 25 steps"):
        pretrain(hard, tmp_path, workers=1, report=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_language_pretraining_writes_a_checkpoint(tmp_path):
    lines = []
    pretrain(TINY, tmp_path, workers=1, report=lines.append)
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float16)}
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2"
    encoder = PromptEncoder(Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    assert encoder.encode([Turn("user", "<|im_end|>")], image_tokens=0).input_ids.tolist().count(encoder.end_id) == 2
    assert any(line.startswith("llm phase 1 held-out answers right: choice 0.") for line in lines)


CAT = Scene(1, "snow", (Thing("cat", "blue", "large", 4, 0.0, 0.0, 0.0, 0.0),), 0.0, 0.0)


def test_patch_labels_follow_the_things():
    phrases, places, centres = (each.reshape(9, 9) for each in label_patches(CAT, 9))
    expected = (KINDS.index("cat") * len(COLOURS) + COLOURS.index("blue")) * len(SIZES) + SIZES.index("large")
    assert phrases[4, 4] == expected
    shown = np.argwhere(phrases == expected)
    assert (shown >= 3).all()
    assert (shown < 6).all()  # inside its cell
    assert ((places == 4) == (phrases == expected)).all()
    assert (places[phrases != expected] == -1).all()
    assert centres[4, 4] == 1
    assert centres.sum() == 1


def test_views_move_labels_and_pixels_alike():
    (moved,) = np.flatnonzero(label_patches(CAT, 9, View(1.1, 1 / 9, -2 / 9))[2])
    assert divmod(int(moved), 9) == (2, 5)
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[41:49, 41:49] = 255  # where the cat's centre is
    batch = augmented([Drawn(pixels, CAT)] * 8, 45, np.random.default_rng(3))
    bright = batch.pixels[:, 1] > batch.pixels[:, 1].amax((1, 2), keepdim=True) - 0.5
    found = torch.stack([each.nonzero().float().mean(0) / 2 for each in bright])
    labelled = torch.stack([each.view(45, 45).nonzero()[0] for each in batch.centres])
    assert (found - labelled).abs().max() <= 1
    assert len(labelled.unique(dim=0)) > 4


def test_rates_rise_then_follow_the_scale():
    model = torch.nn.Linear(3, 2)
    pace = Pace(model, Rates(0.5, 0.1, 4))
    for _ in range(6):
        model(torch.ones(1, 3)).sum().backward()
        pace.step(0.5)
    assert [group["lr"] for each in pace.optimizers for group in each.param_groups] == [0.25, 0.05]
    assert [type(each).__name__ for each in pace.optimizers] == ["AdamW", "Muon"]


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
