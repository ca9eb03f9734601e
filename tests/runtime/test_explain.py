"""Explanations against the equations in float64, and against models that never had the expert."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from reference import QUESTION, greedy_answer
from tiny_bundle import DIMS, TinyModel, softmax, tiny_tokenizer, write_bundle

from parrot_runtime import Parrot, Sampling
from parrot_runtime.cli import main
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.explain import Attention, Expert, Explanation, Router, Word, group, question_among, without
from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_runtime.report import explanation_as_table


@dataclasses.dataclass
class Without(TinyModel):
    """The model of the equations when one expert's part goes to the others."""

    expert: int = 0

    def mix(self, features, text):
        _, routing = super().mix(features, text)
        shares = np.where(np.arange(len(routing)) == self.expert, 0, routing)
        shares /= shares.sum()
        mixed = np.zeros_like(features)
        for i, share in enumerate(shares):
            hidden = features @ self["fc1"][i] + self["fc1_bias"][i]
            mixed += share * ((hidden / (1 + np.exp(-hidden))) @ self["fc2"][i] + self["fc2_bias"][i])
        return features + self.dims.alpha * mixed, shares


def features_of(model, image):
    return model.encode(preprocess(read_image(image), ImageRecipe.clip(28))[None])[0]


@pytest.fixture(scope="session")
def explained(parrot, picture, other_picture):
    return parrot.explain([picture, other_picture], QUESTION, max_new_tokens=12)


def test_words_are_drawn_by_the_attention_of_equation_2(explained, model, picture, other_picture):
    encoder = PromptEncoder(tiny_tokenizer())
    encoded = encoder.encode([Turn("user", QUESTION, 2)], image_tokens=DIMS.image_tokens, generation=True)
    ids = encoded.input_ids[encoded.router_mask]
    asked = tiny_tokenizer().encode(QUESTION).ids
    start = next(i for i in range(len(ids)) if ids[i : i + len(asked)].tolist() == asked)
    for attention, image in zip(explained.attention, (picture, other_picture), strict=True):
        shares = softmax(features_of(model, image)[0] @ model["embed"][ids].T / np.sqrt(DIMS.hidden_size))
        assert [word.text for word in attention.words] == ["Görselde", "ne", "var", "?"]
        question = shares[start : start + len(asked)]
        assert sum(word.share for word in attention.words) == pytest.approx(question.sum(), abs=1e-5)
        assert attention.words[-1].share == pytest.approx(question[-1], abs=1e-5)
        assert attention.rest == pytest.approx(1 - question.sum(), abs=1e-5)


def test_answers_without_an_expert_are_those_of_a_model_without_it(explained, model, picture, other_picture):
    images, tokenizer = [picture, other_picture], tiny_tokenizer()
    _, routing = greedy_answer(model, images, [Turn("user", QUESTION, 2)], 1)
    assert len(explained.experts) == DIMS.experts
    whole = np.stack([model.mix(features_of(model, image), heard(model))[0] for image in images])
    for number, expert in enumerate(explained.experts):
        lesser = Without(expert=number)
        tokens, _ = greedy_answer(lesser, images, [Turn("user", QUESTION, 2)], 12)
        assert expert.answer_without == tokenizer.decode(tokens)
        np.testing.assert_allclose(expert.shares, np.array(routing)[:, number], atol=1e-5)
        rest = np.stack([lesser.mix(features_of(model, image), heard(model))[0] for image in images])
        change = np.sqrt(np.square(rest - whole).mean() / np.square(whole).mean())
        assert expert.change == pytest.approx(change, rel=1e-3)
    assert len({expert.answer_without for expert in explained.experts}) > 1


def heard(model):
    encoder = PromptEncoder(tiny_tokenizer())
    encoded = encoder.encode([Turn("user", QUESTION, 2)], image_tokens=DIMS.image_tokens, generation=True)
    return model["embed"][encoded.input_ids[encoded.router_mask]]


class MeanRouter:
    """The experts' graph of a model without a class token, or of another ``query`` than the paper's; three experts."""

    embeds_dtype = "float32"

    def __init__(self, query=lambda features: features.mean(axis=0), alike=False):
        rng = np.random.default_rng(5)
        self.rows, self.parts, self.query = rng.standard_normal((8, 3)), rng.standard_normal((3, 8)), query
        if alike:
            self.rows[:, 1] = self.rows[:, 0]

    def route(self, features, text, _mask):
        (picture,), (words,) = features, text
        attention = softmax(self.query(picture) @ words.T / np.sqrt(8))
        shares = softmax(attention @ words @ self.rows)
        return (picture + shares @ self.parts)[None], shares[None].astype(np.float32)


def test_a_model_without_a_class_token_asks_with_the_mean():
    rng = np.random.default_rng(6)
    picture, words = rng.standard_normal((9, 8)), rng.standard_normal((11, 8))
    graph = MeanRouter()
    router = Router(graph, 9)
    attention = router.attention(picture[None], words, router.route(picture, words)[1][None])
    np.testing.assert_allclose(attention[0], softmax(picture.mean(axis=0) @ words.T / np.sqrt(8)), atol=1e-6)
    alone = Router(graph, 9).one_by_one(picture, 3)
    np.testing.assert_allclose(alone - picture, np.broadcast_to(graph.parts[:, None], (3, 9, 8)), atol=1e-3)


def test_a_graph_that_is_not_the_papers_is_not_explained():
    rng = np.random.default_rng(6)
    picture, words = rng.standard_normal((9, 8)), rng.standard_normal((11, 8))
    other = Router(MeanRouter(query=lambda features: features[3]), 9)
    routing = other.route(picture, words)[1][None]
    with pytest.raises(ParrotError, match="not that of the paper's"):
        other.attention(picture[None], words, routing)
    with pytest.raises(ParrotError, match="could not be had alone"):
        Router(MeanRouter(alike=True), 9).one_by_one(picture, 3)


def test_the_others_share_out_an_experts_part():
    alone = np.arange(6.0).reshape(3, 1, 2)
    tokens, rest = without(np.array([0.5, 0.3, 0.2]), alone, 0)
    np.testing.assert_allclose(rest, [0, 0.6, 0.4])
    np.testing.assert_allclose(tokens, [[2.8, 3.8]])
    _, rest = without(np.array([1.0, 0.0, 0.0]), alone, 0)
    np.testing.assert_allclose(rest, [0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Kırmızı kedi nerede?", ["Kırmızı", "kedi", "nerede", "?"]),
        ("ماذا يوجد في الصورة؟", ["ماذا", "يوجد", "في", "الصورة", "؟"]),
        ("Где кот?", ["Где", "кот", "?"]),
    ],
)
def test_tokens_are_joined_to_words(text, words):
    ids = np.array(tiny_tokenizer().encode(text).ids)
    shares = np.random.default_rng(0).dirichlet(np.ones(len(ids)))
    found = group(tiny_tokenizer(), ids, shares)
    assert [word.text for word in found] == words
    assert sum(word.share for word in found) == pytest.approx(1)


def test_han_stands_as_its_tokens_and_loses_no_share():
    ids = np.array(tiny_tokenizer().encode("红色的猫？").ids)
    found = group(tiny_tokenizer(), ids, np.full(len(ids), 1 / len(ids)))
    assert "".join(word.text for word in found) == "红色的猫？"
    assert sum(word.share for word in found) == pytest.approx(1)


@pytest.mark.parametrize("question", [[7, 8, 9], [1], [5], [2, 2], [4, 5]])
def test_the_question_is_what_the_bare_prompt_lacks(question):
    """Also where the question begins or ends as the template around it does."""
    bare = np.array([1, 2, 3, 4, 5])
    ids = np.array([1, 2, 3, *question, 4, 5])
    found = question_among(ids, bare)
    assert sorted(ids[found].tolist()) == sorted(question)


def test_the_table():
    experts = (Expert((0.25, 0.5), 0.5, "Evet."), Expert((0.75, 0.5), 0.001, "Hayır."))
    words = (Word("Kedi", 0.2), Word("?", 0.1))
    explained = Explanation((Attention(words, 0.7), Attention((), 1.0)), experts)
    assert explanation_as_table(explained, "Hayır.", images=["a.png", "b.png"]).splitlines() == [
        "  words that drew the router of a.png:",
        "     20.0% ████████████████ Kedi",
        "     10.0% ████████         ?",
        "     70.0%                  (the rest of the prompt: system text and role marks)",
        "  words that drew the router of b.png:",
        "    100.0%                  (the rest of the prompt: system text and role marks)",
        "  expert               share    moves  without it",
        "  1           25.0%    50.0%    50.0%  Evet.",
        "  2           75.0%    50.0%     0.1%  the same answer",
    ]


def test_the_command(bundle, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    arguments = ["--bundle", str(bundle), "--explain", "--max-new-tokens", "5", str(tmp_path / "a.png"), QUESTION]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "words that drew the router:" in result.stderr
    record = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert len(record["explanation"]["experts"]) == DIMS.experts
    assert record["explanation"]["attention"][0]["words"][0]["text"] == "Görselde"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--choices", "A,B"], "--choices"),
        (["--temperature", "0.5"], "--temperature"),
        (["-i"], "-i"),
    ],
)
def test_what_cannot_be_explained_is_refused(options, said, tmp_path):
    result = CliRunner().invoke(main, ["--explain", *options, str(tmp_path / "a.png"), QUESTION])
    assert result.exit_code == 2
    assert f"together with {said}" in result.stderr


def test_nothing_to_explain(parrot, picture, tmp_path):
    with pytest.raises(InputError, match="only pictures are routed"):
        parrot.explain(None, QUESTION)
    with pytest.raises(InputError, match="differs by chance"):
        parrot.explain(picture, QUESTION, sampling=Sampling(temperature=1.0))
    for experts, said in ((0, "no experts"), (1, "one expert")):
        model = TinyModel(dataclasses.replace(DIMS, experts=experts), seed=4)
        with pytest.raises(InputError, match=said):
            Parrot.load(write_bundle(tmp_path / f"of-{experts}", model), threads=1).explain(picture, QUESTION)
