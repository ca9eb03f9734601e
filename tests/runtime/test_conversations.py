"""Streams, conversations, options and batches: each is the answers that questions asked alone would have."""

import itertools
import threading

import numpy as np
import pytest
from reference import QUESTION, greedy_answer
from tiny_bundle import DIMS, TinyModel, tiny_tokenizer, write_bundle

from parrot_runtime import Parrot
from parrot_runtime.composer import Routed
from parrot_runtime.errors import InputError, TextError
from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import PromptEncoder, Turn


def test_a_stream_is_the_answer_in_pieces(parrot, picture):
    whole = parrot.ask(picture, QUESTION, max_new_tokens=40)
    stream = parrot.stream(picture, QUESTION, max_new_tokens=40)
    first = next(stream)
    pieces = [first, *stream]
    assert "".join(pieces) == whole.text == stream.answer.text
    assert len(pieces) > 10
    assert stream.answer.token_ids == whole.token_ids
    assert parrot.stream(picture, QUESTION, max_new_tokens=40).answer.text == whole.text


def test_a_closed_stream_has_no_answer_and_leaves_no_trace(parrot, picture):
    whole = parrot.ask(picture, QUESTION, max_new_tokens=10)
    stream = parrot.stream(picture, QUESTION, max_new_tokens=10)
    next(stream)
    stream.close()
    with pytest.raises(ValueError, match="closed before the answer's end"):
        _ = stream.answer
    assert parrot.ask(picture, QUESTION, max_new_tokens=10).token_ids == whole.token_ids


@pytest.mark.parametrize("reroute", ["auto", "never"])
def test_a_question_that_is_given_up_routes_nothing(parrot, picture, reroute):
    fresh = parrot.chat(picture, reroute=reroute).ask(QUESTION, max_new_tokens=3)
    chat = parrot.chat(picture, reroute=reroute)
    given_up = chat.stream("What is in the picture?", max_new_tokens=10)
    next(given_up)
    given_up.close()
    assert (chat.ask(QUESTION, max_new_tokens=3).routing == fresh.routing).all()


def test_a_conversation_that_is_full_says_so(parrot):
    chat = parrot.chat()
    chat.turns = [Turn(("user", "assistant")[turn % 2], "a b c d") for turn in range(40)]
    with pytest.raises(TextError, match=r"the conversation is full: .*begin a new one"):
        chat.ask(QUESTION)


def test_streams_side_by_side_do_not_mix(parrot, picture, other_picture):
    expected = [parrot.ask(image, QUESTION, max_new_tokens=15).text for image in (picture, other_picture)]
    streams = [parrot.stream(image, QUESTION, max_new_tokens=15) for image in (picture, other_picture)]
    texts = ["", ""]
    for _ in range(40):
        for i, stream in enumerate(streams):
            texts[i] += next(stream, "")
    assert texts == expected


def test_threads_side_by_side_do_not_mix(parrot, picture, other_picture):
    images = [picture, other_picture, None, [picture, other_picture]]
    expected = [parrot.ask(image, QUESTION, max_new_tokens=15).token_ids for image in images]
    results = [None] * 12

    def work(i):
        results[i] = parrot.ask(images[i % 4], QUESTION, max_new_tokens=15).token_ids

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == expected * 3


def test_a_chat_hears_all_turns(parrot, model, picture):
    chat = parrot.chat(picture, reroute="always")
    turns = []
    for number, question in enumerate(["first?", "ikinci?"]):
        turns.append(Turn("user", question, 0 if number else 1))
        tokens, routing = greedy_answer(model, [picture], turns, 8)
        answer = chat.ask(question, max_new_tokens=8)
        assert list(answer.token_ids) == tokens
        # Answers are not heard by the router, questions are: the second turn is routed anew.
        np.testing.assert_allclose(answer.routing, routing, atol=1e-5)
        turns.append(Turn("assistant", answer.text))
        assert chat.turns == turns
    assert answer.stats.cached_images == 1


def _talk(parrot, picture, reroute):
    chat = parrot.chat(picture, reroute=reroute)
    return [chat.ask(question, max_new_tokens=8) for question in ("first?", "ikinci?", "第三？")]


def test_pictures_keep_their_routing_while_it_stays_where_it_was(parrot, picture, monkeypatch):
    """Then the turns before are in the cache whole; and where nothing is kept, every turn is routed as its own."""
    always, never = _talk(parrot, picture, "always"), _talk(parrot, picture, "never")
    head = always[1].stats.kept_tokens  # the system's text, and what opens the user's turn
    for before, turn in itertools.pairwise(never):
        np.testing.assert_array_equal(turn.routing, never[0].routing)
        # Not all of the answer: this model's words are no text, and are other tokens when they are read again.
        assert turn.stats.kept_tokens >= before.stats.prompt_tokens > head
    for tolerance, expected in ((0.0, always), (1.0, never)):
        monkeypatch.setattr(Routed, "TOLERANCE", tolerance)
        got = _talk(parrot, picture, "auto")
        assert [answer.token_ids for answer in got] == [answer.token_ids for answer in expected]
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one.routing, other.routing)


def test_what_is_kept_is_exact_where_the_question_moves_no_picture(tmp_path, picture):
    """Without experts the pictures are the same in every turn: the cache is kept, and the tokens are the equations'."""
    import dataclasses

    model = TinyModel(dataclasses.replace(DIMS, experts=0), seed=4)
    parrot = Parrot.load(write_bundle(tmp_path / "llava", model), threads=1)
    chat, turns = parrot.chat(picture), []
    for number, question in enumerate(["first?", "ikinci?", "third"]):
        turns.append(Turn("user", question, 0 if number else 1))
        answer = chat.ask(question, max_new_tokens=8)
        assert list(answer.token_ids) == greedy_answer(model, [picture], turns, 8)[0]
        assert (answer.stats.kept_tokens > DIMS.image_tokens) == bool(number)
        turns.append(Turn("assistant", answer.text))


def test_options_are_scored_by_their_first_tokens(parrot, model, picture):
    options = ["A", "B", "C", "zebra"]
    choice = parrot.choose(picture, QUESTION, options)
    encoded = PromptEncoder(tiny_tokenizer()).encode(
        [Turn("user", QUESTION, 1)], image_tokens=DIMS.image_tokens, generation=True
    )
    ids, table = encoded.input_ids, model["embed"]
    (features,) = model.encode(preprocess(read_image(picture), ImageRecipe.clip(28))[None])
    embeds = np.where((ids >= 0)[:, None], table[ids], 0.0)
    embeds[ids < 0] = model.mix(features, table[ids[encoded.router_mask]])[0]
    first = [tiny_tokenizer().encode(option, add_special_tokens=False).ids[0] for option in options]
    scores = model.logits(embeds)[first]
    np.testing.assert_allclose(list(choice.shares.values()), np.exp(scores) / np.exp(scores).sum(), atol=1e-4)
    assert choice.text == options[int(scores.argmax())]
    assert choice.stats.decode_steps == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["A"], "expected two or more"),
        (["A", " "], "an option is empty"),
        (["A", "A"], "begin with the same token"),
        (["A", "\udcff"], "lone surrogate"),
    ],
)
def test_options_that_cannot_be_told_apart(parrot, picture, options, message):
    with pytest.raises(InputError, match=message):
        parrot.choose(picture, QUESTION, options)


def test_an_unfinished_turn_is_not_remembered(parrot, picture):
    chat = parrot.chat(picture)
    stream = chat.stream("first?", max_new_tokens=8)
    next(stream)
    stream.close()
    assert chat.turns == []
    with pytest.raises(TextError):
        chat.ask(" ")
    assert chat.turns == []
    assert chat.ask("first?", max_new_tokens=8).token_ids == parrot.ask(picture, "first?", max_new_tokens=8).token_ids


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_a_batch_is_the_same_answers_in_order(parrot, picture, other_picture, slots):
    questions = [
        (picture, "a"),
        (None, "a longer question than that"),
        ([picture, other_picture], "c"),
        (other_picture, "d"),
    ]
    questions = [*questions, (picture, "e e")]
    expected = [parrot.ask(*question, max_new_tokens=15) for question in questions]
    answers = parrot.ask_batch(iter(questions), slots=slots, max_new_tokens=15)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    assert [answer.finish for answer in answers] == ["length"] * 5


def test_a_batch_of_answers_of_different_lengths(tmp_path, picture):
    parrot = Parrot.load(write_bundle(tmp_path / "b", TinyModel(seed=3, talkative=False)), threads=1)
    questions = [(picture if number % 3 else None, "x" * number) for number in range(1, 30)]
    expected = [parrot.ask(*question, max_new_tokens=12) for question in questions]
    lengths = {len(answer.token_ids) for answer in expected}
    # Slots are freed at once, after a step, and by the limit.
    assert {0, 1, 2, 12} <= lengths
    answers = parrot.ask_batch(questions, slots=4, max_new_tokens=12)
    assert [(a.token_ids, a.finish) for a in answers] == [(a.token_ids, a.finish) for a in expected]


def test_an_empty_batch(parrot):
    assert parrot.ask_batch([]) == []
