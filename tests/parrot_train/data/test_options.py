"""Which questions offer letters, and which answers are one."""

from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_runtime.languages import CODES
from parrot_train.data.options import chosen_letter, offered_letters


@pytest.mark.parametrize(
    ("question", "letters"),
    [
        ("What colour?\nA. red\nB. blue\nAnswer with the option's letter.", "AB"),
        ("图里有什么？\nA、猫\nB、狗\nC、鸟", "ABC"),
        ("Hangisi?\n(A) kedi\n(B) köpek", "AB"),
        ("A. Smith painted this. Who else?", ""),
        ("Which?\nB. one\nC. two", ""),
        ("Which?\nA. one\nC. two", ""),
        ("Which?\nA.\nB.", ""),
        ("", ""),
    ],
)
def test_letters_that_run_from_a_on_are_offered(question, letters):
    assert offered_letters(question) == letters


def test_nano_offers_what_its_questions_say():
    import random

    from parrot_train.nano.grammar import GRAMMARS
    from parrot_train.nano.questions import sample_question
    from parrot_train.nano.scenes import scenes

    chance, drawn, found = random.Random(5), scenes("held-out", seed="options"), set()
    for language in CODES * 8:
        question = sample_question(next(drawn), GRAMMARS[language], chance)
        assert offered_letters(question.prompt) == ascii_uppercase[: len(question.options)]
        assert chosen_letter(question.answer) == (question.answer if question.options else None)
        found.add(len(question.options))
    assert found == {0, 2, 4}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("C. red", "C"),
        ("A、猫", "A"),
        ("A dog.", None),
        ("Blue", None),
        ("b", None),
        ("", None),
    ],
)
def test_an_answer_is_a_letter_alone_or_at_the_head_of_its_option(answer, letter):
    assert chosen_letter(answer) == letter


@given(st.text())
def test_any_text_has_letters_or_none(text):
    assert offered_letters(text) in [ascii_uppercase[:count] for count in range(27)]
    assert chosen_letter(text) in {None, *ascii_uppercase}
