"""Drafts from what was said before: where they come from, when they stop, and that no answer changes by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import TinyModel, edit_manifest, write_bundle

from parrot_runtime import Parrot, Sampling
from parrot_runtime.lookup import COST, LONG, MATCH, SHORT, Lookup

QUESTION = "Görselde ne var?"


def test_a_draft_is_what_stood_behind_the_same_tokens():
    lookup = Lookup(np.array([-1, -1, 4, 5, 6, 7, 8, 9, 10, 1]))
    assert lookup.draft([4, 5], 9) == []
    assert lookup.draft([4, 5, 6], 9) == [7, 8, 9]
    assert lookup.draft([4, 5, 6], 2) == [7, 8]
    assert lookup.draft([4, 5, 6], 0) == []
    assert lookup.draft([4, 5, 6, 4, 5, 6], 2) == [4, 5]  # the place nearest to the end
    assert lookup.draft([4, 5, 6, 4, 5, 6, 6], 9) == []


def test_a_picture_is_never_drafted():
    lookup = Lookup(np.array([4, 5, 6, 7, -1, -1, -1, 4]))
    assert lookup.draft([5, 6], 9) == [7]
    assert Lookup(np.array([-1] * 7)).draft([], 9) == []
    assert Lookup(np.array([3])).draft([], 9) == []


def test_drafts_get_long_while_they_are_right_and_short_again():
    lookup = Lookup(np.arange(40))
    assert len(lookup.draft([0, 1, 2], 99)) == SHORT
    lookup.judge(SHORT, SHORT)
    assert len(lookup.draft([0, 1, 2, 3, 4], 99)) == LONG
    lookup.judge(LONG, 2)
    assert len(lookup.draft([0, 1, 2, 3, 4, 5, 6], 99)) == SHORT


def test_drafting_ends_when_it_has_cost_a_step():
    lookup = Lookup(np.arange(40))
    wrong = 0
    while lookup.draft([0, 1, 2], 99):
        lookup.judge(SHORT, 0)
        wrong += 1
    assert (wrong - 1) * SHORT * COST <= 1 < wrong * SHORT * COST


@given(st.lists(st.integers(-1, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40), st.integers(0, 9))
def test_drafts_are_found_by_going_through_everything(prompt, answer, most):
    lookup, drafted = Lookup(np.array(prompt, np.int64)), []
    for count in range(len(answer) + 1):
        drafted = lookup.draft(answer[:count], most)
    text, expected = [*prompt, *answer], []
    for at in range(len(text) - MATCH):
        if text[at : at + MATCH] == text[-MATCH:] and min(text[-MATCH:]) >= 0:
            expected = text[at + MATCH :][: min(SHORT, most)]
    if -1 in expected:
        expected = expected[: expected.index(-1)]
    assert drafted == expected


class _Oracle(Lookup):
    """Drafts a known answer, but for the places in ``wrong``."""

    answer: tuple[int, ...] = ()
    wrong: frozenset[int] = frozenset()

    def draft(self, answer, most):
        start = len(answer)
        ahead = range(start, min(start + most, start + LONG, len(self.answer)))
        return [self.answer[at] ^ (at in self.wrong) for at in ahead]


@pytest.fixture(scope="module")
def answers(model, tmp_path_factory):
    """The bundle loaded without drafts and with them."""
    folder = write_bundle(tmp_path_factory.mktemp("lookup") / "b", model)
    return Parrot.load(folder, threads=1, lookup=False), Parrot.load(folder, threads=1)


@settings(max_examples=30, deadline=None)
@given(wrong=st.frozensets(st.integers(0, 39), max_size=12), tokens=st.integers(1, 40), hot=st.booleans())
def test_right_or_wrong_drafts_change_no_answer(answers, picture, wrong, tokens, hot):
    plain, drafting = answers
    sampling = Sampling(temperature=0.8, seed=3) if hot else Sampling(repetition_penalty=1.1)
    expected = plain.ask(picture, QUESTION, max_new_tokens=tokens, sampling=sampling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parrot_runtime.composer.Lookup", _Oracle)
        patch.setattr(_Oracle, "answer", expected.token_ids)
        patch.setattr(_Oracle, "wrong", wrong)
        got = drafting.ask(picture, QUESTION, max_new_tokens=tokens, sampling=sampling)
    assert (got.token_ids, got.text, got.finish) == (expected.token_ids, expected.text, expected.finish)
    assert got.stats.decoded_tokens == expected.stats.decoded_tokens == expected.stats.decode_steps
    if tokens == 40 and not wrong:
        assert got.stats.decode_steps == -(-39 // (LONG + 1))


def test_an_answer_that_repeats_itself_takes_fewer_steps(answers, picture):
    plain, drafting = answers
    text = "bir kuş, " * 3
    expected, got = (parrot.ask(picture, text, max_new_tokens=100) for parrot in (plain, drafting))
    assert got.token_ids == expected.token_ids
    assert got.stats.decode_steps < got.stats.decoded_tokens == expected.stats.decode_steps


def test_the_token_that_ends_an_answer_may_be_drafted(tmp_path, picture, monkeypatch):
    folder = write_bundle(tmp_path / "b", TinyModel(seed=3, talkative=False))
    plain, drafting = Parrot.load(folder, threads=1, lookup=False), Parrot.load(folder, threads=1)
    expected = plain.ask(picture, QUESTION, max_new_tokens=40)
    assert expected.finish == "stop"
    stop = min(drafting._prompts.stop_ids)
    monkeypatch.setattr("parrot_runtime.composer.Lookup", _Oracle)
    monkeypatch.setattr(_Oracle, "answer", (*expected.token_ids, stop, stop, stop))
    got = drafting.ask(picture, QUESTION, max_new_tokens=40)
    assert (got.token_ids, got.finish) == (expected.token_ids, "stop")
    assert got.stats.decode_steps < got.stats.decoded_tokens == expected.stats.decode_steps


def test_the_cache_holds_what_was_kept_and_no_more(answers, picture, monkeypatch):
    """A conversation goes on behind an answer with refused drafts as behind one without any."""
    plain, drafting = answers
    chats = [parrot.chat(picture) for parrot in (plain, drafting)]
    first = chats[0].ask(QUESTION, max_new_tokens=20)
    monkeypatch.setattr("parrot_runtime.composer.Lookup", _Oracle)
    monkeypatch.setattr(_Oracle, "answer", first.token_ids)
    monkeypatch.setattr(_Oracle, "wrong", frozenset({3, 4, 11}))
    assert chats[1].ask(QUESTION, max_new_tokens=20).token_ids == first.token_ids
    monkeypatch.setattr(_Oracle, "answer", ())
    seconds = [chat.ask("And the colour?", max_new_tokens=20) for chat in chats]
    assert seconds[0].token_ids == seconds[1].token_ids
    assert seconds[0].stats.kept_tokens == seconds[1].stats.kept_tokens > 0


def test_only_an_answer_that_is_alone_drafts(answers, picture):
    plain, drafting = answers
    questions = [(picture, "bir kuş, bir kuş, bir kuş, bir kuş"), (None, "一只鸟，一只鸟，一只鸟")]
    expected = [plain.ask(*question, max_new_tokens=30).token_ids for question in questions]
    got = drafting.ask_batch(questions, slots=2, max_new_tokens=30)
    assert [answer.token_ids for answer in got] == expected
    assert all(answer.stats.decode_steps == answer.stats.decoded_tokens for answer in got)


def test_graphs_without_the_option_and_int8_take_single_steps(model, tmp_path, picture):
    folders = [write_bundle(tmp_path / name, model, kept=name != "old") for name in ("old", "int8", "new")]
    edit_manifest(folders[1], precision="int8")
    loaded = [Parrot.load(folder, threads=1) for folder in folders]
    assert [parrot._backend.extends for parrot in loaded] == [False, False, True]
    answers = [parrot.ask(picture, "kuş, kuş, kuş, kuş, kuş", max_new_tokens=30) for parrot in loaded]
    assert len({answer.token_ids for answer in answers}) == 1
    assert all(answer.stats.decode_steps == answer.stats.decoded_tokens for answer in answers[:2])


def test_several_positions_at_once_are_single_steps(answers, model):
    plain, _ = answers
    backend = plain._backend
    rows = np.random.default_rng(5).normal(size=(33, model.dims.hidden_size)).astype(np.float32)
    alone, together = backend.new_cache(2, 64), backend.new_cache(2, 64)
    for cache in (alone, together):
        backend.prefill(rows[:26], cache, slot=1)
    got = backend.extend(rows[26:], together, slot=1, start=26)
    assert got.shape == (7, model.dims.vocab_size)
    for at in range(26, 33):
        # float32 sums in another order: the differences seen are 1e-6.
        expected = backend.prefill(rows[at : at + 1], alone, slot=1, start=at)
        np.testing.assert_allclose(got[at - 26], expected, atol=1e-5)
    for one, other in zip(alone.arrays, together.arrays, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
