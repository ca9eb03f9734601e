"""The parts of the study of the paper's claims: translation with an imperfect dictionary, forms of the mixture,
backbones."""

import random
from itertools import islice
from pathlib import Path

import pytest
import torch

from parrot_benchmarks.paper.answering import translating
from parrot_benchmarks.paper.backbones import folder_of, make_encoder, make_language_model
from parrot_benchmarks.paper.dictionary import FORMS, Dictionary
from parrot_benchmarks.paper.job import overrides
from parrot_benchmarks.paper.mixtures import installed, question_mask
from parrot_benchmarks.paper.study import Study
from parrot_benchmarks.paper.variants import OTHERS, Variant
from parrot_evaluation.benchmarks import find_benchmark
from parrot_evaluation.prompts import prompt
from parrot_evaluation.runner import Question
from parrot_evaluation.text import normalise
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_train.config_files import load_config
from parrot_train.model.configuration import ParrotConfig
from parrot_train.nano.backbones import shipped
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.questions import value_question
from parrot_train.nano.scenes import scenes
from parrot_train.nano.vision_backbone import words


# --- translation ----------------------------------------------------------------------------------------------------
def test_without_faults_lists_come_back_as_the_language_says_them():
    for code in OTHERS:
        dictionary, checked = Dictionary(code, 0.0, 1), 0
        for number, scene in enumerate(islice(scenes("held-out", seed="dictionary"), 40)):
            for name in ("object", "describe", "report", "background", "at_position", "position"):
                pair = [value_question(name, "open", scene, GRAMMARS[c], random.Random(number)) for c in ("en", code)]
                if None not in pair:
                    assert normalise(dictionary.answer(pair[0].answer)) == normalise(pair[1].answer)
                    checked += 1
        assert checked > 150


def test_the_stated_share_of_words_is_wrong_or_missing():
    assert len(FORMS) == 61
    dictionary = Dictionary("tr", 0.3, 1)
    for faults in (dictionary.to_english, dictionary.from_english):
        assert len(faults) == 18
        assert sum(other is None for other in faults.values()) == 9
        assert all(other is None or (other[0] == word[0] and other != word) for word, other in faults.items())
    assert dictionary.to_english != dictionary.from_english


def test_a_wrong_word_is_another_and_a_missing_one_stays():
    dictionary = Dictionary("tr", 0.0, 1)
    dictionary.from_english |= {("kind", 0): ("kind", 2), ("kind", 8): None}  # apple → pear, car missing
    dictionary.to_english |= {("kind", 0): ("kind", 2), ("kind", 8): None}
    assert dictionary.answer("An apple.") == "Bir armut."
    assert dictionary.answer("A red apple and two blue cats.") == "Kırmızı bir armut ve iki mavi kedi."
    assert dictionary.answer("A car.") == "A car."
    assert dictionary.answer("It is a secret.") == "It is a secret."
    assert dictionary._read("Is there an apple in the picture?") == "Is there a pear in the picture?"
    assert "araba" in dictionary._read("Where is the car?")


def test_a_model_is_asked_in_english_and_letters_are_left_alone(nano_questions):
    benchmark = find_benchmark("nano")
    read = [read_tsv(nano_questions / f"nano_{code}.tsv") for code in ("en", "ru")]
    put = []

    def ask(batch):
        put.extend(batch)
        return ["B" if "\nA. " in question.text else "A red apple." for question in batch]

    assert all(row.kind for row in read[0].rows)  # what a row works out and keeps must not be in the way
    translated = translating(ask, benchmark, read, 0.0, 1)
    rows = [next(row for row in read[1].rows if bool(row.options) == choice) for choice in (True, False)]
    asked = [Question(b"", prompt(row, benchmark), "ru", "") for row in rows]
    assert list(translated(asked)) == ["B", "Красное яблоко."]
    english = {row.index: row for row in read[0].rows}
    assert [question.text for question in put] == [prompt(english[row.index], benchmark) for row in rows]


# --- forms of the mixture -------------------------------------------------------------------------------------------
def small_model():
    from parrot_train.model import ParrotForConditionalGeneration

    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "vocab_size": 1536}
    return ParrotForConditionalGeneration(ParrotConfig(vision_config=vision, text_config=text, num_experts=4)).eval()


TOKENIZER = shipped("llm") / "tokenizer.json"


@pytest.mark.parametrize("kept", [1, 2])
def test_top_k_keeps_the_largest_and_they_sum_to_one(kept):
    dense = small_model()
    with installed(f"top {kept}", TOKENIZER):
        sparse = small_model()
    query, words, mask = torch.randn(3, 16), torch.randn(3, 33, 16), torch.ones(3, 33, dtype=torch.bool)
    full, few = (model.model.moe.route(query, words, mask) for model in (dense, sparse))
    assert ((few > 0).sum(-1) == kept).all()
    torch.testing.assert_close(few.sum(-1), torch.ones(3))
    assert (few.argmax(-1) == full.argmax(-1)).all()
    assert type(small_model().model.moe) is type(dense.model.moe)  # outside nothing is changed


def test_the_router_of_the_question_reads_what_the_user_typed():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    encoder = PromptEncoder(tokenizer)
    turns = [
        Turn("user", "Görselde ne var?", 1),
        Turn("assistant", "Bir elma."),
        Turn("user", "A B"),
        Turn("assistant", "C"),
    ]
    encoded = encoder.encode(turns, image_tokens=5)
    ids = torch.from_numpy(encoded.input_ids)[None]
    start, end = (tokenizer.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    mask = question_mask(ids, start=start, end=end, header=tokenizer.encode("user\n").ids)
    assert tokenizer.decode(ids[0][mask[0]].tolist(), skip_special_tokens=False) == "\nGörselde ne var?A B"

    model, pictures = small_model(), torch.randn(1, 3, 8, 8)
    other = encoder.encode(turns, image_tokens=5, system="Something else entirely.")
    routed = {}
    for mixture in ("as configured", "question"):
        with installed(mixture, TOKENIZER), torch.no_grad():
            routed[mixture] = [
                model(input_ids=torch.from_numpy(each.input_ids)[None], pixel_values=pictures,
                      prompt_mask=torch.from_numpy(each.router_mask)[None]).routing
                for each in (encoded, other)
            ]  # fmt: skip
    assert not torch.allclose(*routed["as configured"], atol=1e-7)
    torch.testing.assert_close(*routed["question"])


# --- backbones ------------------------------------------------------------------------------------------------------
def test_the_multilingual_encoder_and_a_language_model_are_backbones(tmp_path):
    from parrot_train.assemble import from_backbones

    mine = Study(tmp_path, scale=0.25, questions=100)
    made = {part: Path(folder_of(mine, part, which)) for part, which in (("vision", "multilingual"), ("llm", "small"))}
    seen = []
    make_encoder(made["vision"], seen.append, pictures=12, steps=12, batch=4)
    make_language_model("small", made["llm"], seen.append, steps=2)
    config = load_config("nano", overrides(mine, Variant("x", "", encoder="multilingual", llm="small"), 1))
    model, tokenizer, origin = from_backbones(config)
    assert model.config.text_config.hidden_size == 96
    assert origin["vision"] == str(made["vision"])
    assert tokenizer.read_bytes() == TOKENIZER.read_bytes()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_text_side_of_the_encoder_cuts_every_language_into_words():
    assert words("A large red apple, in the top left.") == ["a", "large", "red", "apple", "in", "the", "top", "left"]
    assert words("左上角有一个苹果。") == list("左上角有一个苹果")
    assert words("Büyük ağaç") == ["büyük", "ağaç"]
    assert words("تفاحة حمراء") == ["تفاحة", "حمراء"]
