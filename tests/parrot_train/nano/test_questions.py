"""Questions: one right answer, told from the scene alone, in every language and form."""

import random
from itertools import islice

import pytest

from parrot_train.nano.categories import VALUE_CATEGORIES, YES_NO_CATEGORIES
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.questions import FORMS, sample_question, value_question, yes_no_question
from parrot_train.nano.scenes import Scene, Thing, scenes


def thing(kind: str, colour: str, cell: int, size: str = "large") -> Thing:
    return Thing(kind, colour, size, cell, 0.0, 0.0, 0.0, 0.0)


SCENE = Scene(
    1,
    "beach",
    (
        thing("apple", "red", 0),
        thing("car", "blue", 4, "small"),
        thing("cat", "white", 5),
        thing("cat", "white", 8),
    ),
    0.0,
    0.0,
)


def test_at_least_fifteen_categories():
    assert len(VALUE_CATEGORIES) + len(YES_NO_CATEGORIES) >= 15


@pytest.mark.parametrize("code", GRAMMARS)
@pytest.mark.parametrize("form", ["open", "choice"])
def test_options_are_distinct_and_one_is_right(code, form):
    r, g = random.Random(3), GRAMMARS[code]
    stream = scenes("train", seed=9)
    for name in FORMS[form]:
        found = [q for q in (value_question(name, form, scene, g, r) for scene in islice(stream, 60)) if q]
        assert found, name
        for question in found:
            if form == "choice":
                assert len(set(question.options)) == 4
                assert question.answer in "ABCD"
                assert question.prompt.count("\n") == 5
            else:
                assert question.answer.endswith((".", "。"))


EXPECTED = {  # category: (right value in English, words that must not be among the options)
    "count": {"one", "two"},
    "total": {"four"},
    "background": {"a beach"},
    "class_member": {"an apple", "a car", "a cat"},
    "at_position": {"an apple", "a car", "a cat"},
    "with_colour": {"an apple", "a car"},
    "position": {"in the top left", "in the centre"},
    "colour": {"red", "blue", "white"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_right_option_is_what_the_scene_shows(name):
    r, g = random.Random(1), GRAMMARS["en"]
    values = set()
    for _ in range(60):
        question = value_question(name, "choice", SCENE, g, r)
        values.add(question.options["ABCD".index(question.answer)])
    assert values == EXPECTED[name]


def test_wrong_kinds_are_not_in_the_picture_when_asked_what_is():
    r, g = random.Random(1), GRAMMARS["en"]
    for _ in range(60):
        question = value_question("which_present", "choice", SCENE, g, r)
        shown = {"an apple", "a car", "a cat"}
        assert [option in shown for option in question.options].count(True) == 1
        assert question.options["ABCD".index(question.answer)] in shown


def test_beside_has_one_answer_and_never_names_its_own_anchor():
    r, g = random.Random(1), GRAMMARS["en"]
    pair = Scene(1, "snow", (thing("apple", "red", 3), thing("car", "blue", 5)), 0.0, 0.0)
    seen = {}
    for _ in range(40):
        question = value_question("beside", "choice", pair, g, r)
        seen[question.question] = question.options["ABCD".index(question.answer)]
        assert not any(f"the {option.split()[-1]}?" in question.question for option in question.options)
    assert seen == {"What is to the right of the apple?": "a car", "What is to the left of the car?": "an apple"}
    # Two cats make "to the right of the apple" ambiguous.
    assert value_question("beside", "open", SCENE, g, r) is None


@pytest.mark.parametrize(
    ("name", "truth", "expected"),
    [
        ("existence", True, [f"Is there {one} in the picture?" for one in ("an apple", "a car", "a cat")]),
        ("more", True, ["Are there more cats than apples?", "Are there more cats than cars?"]),
        ("more", False, ["Are there more apples than cats?", "Are there more cars than cats?"]),
        (
            "same_colour",
            False,
            [f"Are the {a} and the {b} the same colour?" for a, b in (("apple", "car"), ("car", "apple"))],
        ),
    ],
)
def test_yes_no_questions_mean_what_they_say(name, truth, expected):
    r, g = random.Random(1), GRAMMARS["en"]
    asked = {yes_no_question(name, SCENE, g, r, truth=truth, lettered=False) for _ in range(60)}
    assert {question.question for question in asked} == set(expected)
    assert {question.answer for question in asked} == {"Yes." if truth else "No."}


def test_no_yes_question_where_none_is_true():
    assert yes_no_question("same_colour", SCENE, GRAMMARS["en"], random.Random(1), truth=True, lettered=False) is None


@pytest.mark.parametrize("code", GRAMMARS)
def test_every_scene_can_be_asked_about(code):
    r = random.Random(2)
    asked = [sample_question(scene, GRAMMARS[code], r) for scene in islice(scenes("train", seed=2), 400)]
    assert {question.form for question in asked} == {"open", "choice", "yes-no"}
    assert all(question.language == code and question.answer for question in asked)
    letters = [question.answer for question in asked if question.form == "choice"]
    # The right letter is drawn at random: none is favoured beyond chance (n about 160, 4 standard deviations).
    assert all(abs(letters.count(letter) / len(letters) - 0.25) < 0.14 for letter in "ABCD")
