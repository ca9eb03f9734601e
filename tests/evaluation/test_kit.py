"""The kit's rules on a table of hard answers."""

import pytest

from parrot_evaluation.kit import kit_letter, kit_yes_no

OPTIONS = {"A": "a dog", "B": "a cat", "C": "red", "D": "dark red"}

# What VLMEvalKit's published rules say, worked out by hand: letters as tokens first, then option texts.
KIT = [
    ("A", "A"),
    ("A.", "A"),
    ("(B)", "B"),
    ("[C]: red", "C"),
    ("**D**", "D"),
    ("#D {x}", "D"),
    ("The answer is B", "B"),
    ("B B B", "B"),
    ("A or B", None),  # two letters; no option text either
    ("A cat is shown", "A"),  # the article is taken for an option
    ("it is a cat", "B"),  # no letter token; the text is there
    ("It Is A Cat", "A"),
    ("a dog and a cat", None),  # two texts
    ("dark red", None),  # "red" and "dark red" are both inside
    ("RED!", "C"),
    ("a", None),  # a small letter is no option letter
    ("A。", None),
    ("答案是A", None),
    ("答案：A", None),
    ("А", None),  # Cyrillic
    ("Ａ", None),  # full width
    ("A-B", None),
    ("A?", None),  # the question mark is not among the characters that become spaces
    ("'A'", None),
    ("A\nbecause", "A"),
    ("Z", None),
    ("Z a cat", None),  # the kit's refusal letter stops the search for texts
    ("Z B", "B"),
    ("", None),
    ("none of these", None),
]


@pytest.mark.parametrize(("answer", "expected"), KIT)
def test_kit_letter(answer: str, expected: str | None) -> None:
    assert kit_letter(answer, OPTIONS) == expected


def test_kit_letter_searches_texts_after_two_letters() -> None:
    assert kit_letter("A B red", {"A": "x1", "B": "y1", "C": "red"}) == "C"


def test_kit_texts_are_compared_in_lower_case() -> None:
    assert kit_letter("it is PARIS", {"A": "Rome", "B": "Paris"}) == "B"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("Yes.", "yes"), ("no, it is not", "no"), ("Yes and no", None), ("Evet", None), ("是", None), ("nothing", None)],
)
def test_kit_yes_no_knows_english_only(answer: str, expected: str | None) -> None:
    assert kit_yes_no(answer) == expected
