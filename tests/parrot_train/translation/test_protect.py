"""What is protected comes back as it was, and a translation that loses any of it is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_train.translation.protect import GarbledError, kept_parts, numbers, protect


@pytest.mark.parametrize(
    ("text", "core", "kept"),
    [
        ("<image>\nWhat is it?", "What is it?", ()),
        ("What is it?\n<image>", "What is it?", ()),
        ("First <image> then <image> here", "First ⟦0⟧ then ⟦1⟧ here", ("<image>", "<image>")),
        ("See https://a.org/b?c=d&e=1, then go", "See ⟦0⟧, then go", ("https://a.org/b?c=d&e=1",)),
        ("看https://a.org/b。好", "看⟦0⟧。好", ("https://a.org/b",)),
        ("Mail me@a.org now", "Mail ⟦0⟧ now", ("me@a.org",)),
        ("Run `ls -l` twice", "Run ⟦0⟧ twice", ("`ls -l`",)),
        ("So:\n```\nx = 1\n\ny\n```\nDone", "So:\n⟦0⟧\nDone", ("```\nx = 1\n\ny\n```",)),
        ("At [0.12, 0.5, 1, 0.9] a dog", "At ⟦0⟧ a dog", ("[0.12, 0.5, 1, 0.9]",)),
        ("The <b>dog</b> runs", "The ⟦0⟧dog⟦1⟧ runs", ("<b>", "</b>")),
        ("Which?\nA. a cat\n(B) a dog", "Which?\n⟦0⟧ a cat\n⟦1⟧ a dog", ("A.", "(B)")),
        ("The answer is B.", "The answer is ⟦0⟧.", ("B",)),
        ("Answer: C, a tree", "Answer: ⟦0⟧, a tree", ("C",)),
        ("Choose option D please", "Choose option D please", ()),
        ("The answer is A cat", "The answer is A cat", ()),
        ("A cat sits.", "A cat sits.", ()),
        ("It says ⟦0⟧ here", "It says ⟦0⟧ here", ("⟦0⟧",)),
        ("Is 3 < 4 and 5 > 2?", "Is 3 < 4 and 5 > 2?", ()),
    ],
)
def test_what_is_taken_out(text, core, kept):
    protected = protect(text)
    assert (protected.core, protected.kept) == (core, kept)
    assert protected.restore(protected.core) == text


@pytest.mark.parametrize("text", ["B", "(B)", " C. ", "<image>", "<image>\n", "12", "3.5 %", "", "https://a.org"])
def test_what_has_no_words_is_not_translated(text):
    assert not protect(text).has_words


def test_options_may_not_change_their_letters_but_marks_may_move():
    protected = protect("Go to https://a.org or `b` today")
    assert protected.restore("Bugün ⟦1⟧ ya da ⟦0⟧") == "Bugün `b` ya da https://a.org"


@pytest.mark.parametrize(
    ("translation", "words"),
    [
        ("Hiç", "⟦0⟧ does not stand exactly once"),
        ("⟦0⟧ ve ⟦0⟧", "⟦0⟧ does not stand exactly once"),
        ("⟦0⟧ ve ⟦1⟧", "a mark ⟦…⟧ that its source has not"),
        ("⟦0⟧ ve ⟦", "a mark ⟦…⟧ that its source has not"),
        ("⟦0⟧\nve", "2 lines where its source has 1"),
        ("  ", "empty"),
        ("⟦0⟧ <image>", "<image>, which its source has not"),
    ],
)
def test_a_translation_that_lost_something_is_refused(translation, words):
    with pytest.raises(GarbledError, match=words):
        protect("See `x` and go").restore(translation)


@settings(max_examples=400, deadline=None)
@given(st.text("A.B()<>[]`'\n ⟦⟧0:/xé中", max_size=60))
def test_any_text_comes_back_whole(text):
    protected = protect(text)
    if protected.core.strip():
        assert protected.restore(protected.core) == text
    else:
        assert not protected.has_words
    assert all(part in text for part in kept_parts(text))


def test_numbers_count_alike_in_every_script_and_grouping():
    assert numbers("1,000 of 25") == numbers("25 من ١٬٠٠٠") == numbers("1.000 de 25") == numbers("1 000 из 25")
    assert numbers("two 2s") != numbers("two 3s")
    assert numbers("1 " * 5000 + "x") == numbers("١" * 5000)  # of more digits than int() reads
