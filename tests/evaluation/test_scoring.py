from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tsv_files import choice, open_row, picture, yes_no

from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.scoring import Cell, cells, count, judge, spreads, wilson
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import InputError

NANO, MMMB, MMBENCH = (BENCHMARKS[name] for name in ("nano", "MMMB", "MMBench_dev"))


def measure(benchmark, name: str):
    return next(each for each in benchmark.measures if each.name == name)


@pytest.fixture
def judged(make_tsv):
    """Samples of (row, response) pairs, written to a file and read back."""

    def judge_all(pairs, benchmark=NANO, code="en"):
        rows = read_tsv(make_tsv(f"x_{code}.tsv", [row for row, _ in pairs])).rows
        return [judge(row, response, benchmark) for row, (_, response) in zip(rows, pairs, strict=True)]

    return judge_all


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_against_the_roots_of_its_equation(pair: tuple[int, int]) -> None:
    right, total = pair
    # The interval's ends are the p with (right/total - p)² = z² p (1 - p) / total, here found as polynomial roots.
    z, share = 1.959963984540054, right / total
    roots = np.sort(np.roots([1 + z**2 / total, -(2 * share + z**2 / total), share**2]).real)
    # Near a double root at 0 or 1 numpy's companion matrix is good to the square root of float64's precision.
    assert wilson(right, total) == pytest.approx(np.clip(roots, 0, 1), abs=2e-8)


def test_wilson_of_a_known_case() -> None:
    # 8 of 10, as given to four digits by textbooks: 0.4902 to 0.9433.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0, 7)[0] == 0
    assert wilson(7, 7)[1] == 1


def test_a_cell_of_nothing_has_no_share() -> None:
    cell = Cell("choice", "tr", "all", "", 0, 0)
    assert (cell.value, cell.interval) == (None, None)


def test_judging_choices_with_both_extractions(judged) -> None:
    samples = judged([(choice("B"), "B."), (choice("B"), "b"), (choice("B"), "A cat"), (choice("B"), "C")])
    assert [(sample.right, sample.kit_right) for sample in samples] == [
        (True, True),
        (True, False),  # a small letter
        (True, False),  # the kit takes the article for option A
        (False, False),
    ]
    assert count(measure(NANO, "choice"), samples) == (3, 4, 0)
    assert count(measure(NANO, "choice_kit"), samples) == (1, 4, 0)


def test_judging_plain_yes_no(judged) -> None:
    plain = replace(NANO, yes_no="plain")
    pairs = [(yes_no("A", ("Evet", "Hayır")), "Evet, var."), (yes_no("B", ("Evet", "Hayır")), "Hayır.")]
    samples = judged([*pairs, (yes_no("B", ("Evet", "Hayır")), "No.")], plain, "tr")
    assert [sample.right for sample in samples] == [True, True, True]
    assert [sample.kit_right for sample in samples] == [False, False, True]  # the kit knows English only


def test_open_answers_are_compared_normalised(judged) -> None:
    samples = judged([(open_row("Bir kedi."), "bir KEDİ"), (open_row("Bir kedi."), "bir köpek")], code="tr")
    assert [sample.right for sample in samples] == [True, False]
    assert count(measure(NANO, "open"), samples) == (1, 2, 0)
    assert count(measure(NANO, "choice"), samples) == (0, 0, 0)


def test_an_empty_answer_is_never_right(judged) -> None:
    pairs = [(open_row("?"), ""), (open_row("?"), " \u200b"), (open_row("?"), "!"), (open_row("?"), "？")]
    assert [sample.right for sample in judged(pairs)] == [False, False, False, True]


def test_answer_language_leaves_out_what_cannot_be_known(judged) -> None:
    pairs = [(open_row("x"), "Bir kedi."), (open_row("x"), "A cat is here."), (open_row("x"), "42"), (choice("A"), "A")]
    samples = judged(pairs, code="tr")
    assert [sample.in_language for sample in samples] == [True, False, None, None]
    assert count(measure(NANO, "language"), samples) == (1, 2, 2)


def test_pairs_count_a_picture_only_when_both_questions_are_right(judged) -> None:
    one, two, three, four = (picture(number) for number in (1, 2, 3, 4))
    samples = judged(
        [
            (yes_no("A", image=one), "A"),
            (yes_no("B", image=one), "B"),
            (yes_no("A", image=two), "A"),
            (yes_no("B", image=two), "A"),  # says yes to everything
            (yes_no("A", image=three), "A"),  # has no No question
            (yes_no("A", image=four), "A"),
            (yes_no("A", image=four), "A"),  # two Yes questions are no pair
            (choice("A", image=one), "D"),  # not a Yes/No row
        ]
    )
    assert count(measure(NANO, "pairs"), samples) == (1, 2, 2)
    assert count(measure(NANO, "yes_no"), samples) == (6, 7, 0)


def test_pairs_of_a_picture_are_told_apart_by_category(judged) -> None:
    one, two = picture(1), picture(2)
    asked = [("A", one, "colour"), ("B", one, "colour"), ("A", one, "place"), ("B", one, "place")]
    asked += [("A", two, "colour"), ("B", two, "place")]
    answers = "ABAAAB"
    samples = judged(
        [
            (yes_no(letter, image=image, category=category), answer)
            for (letter, image, category), answer in zip(asked, answers, strict=True)
        ]
    )
    found = {(cell.level, cell.group): cell for cell in cells(NANO, samples) if cell.measure == "pairs"}
    counted = {key: (cell.right, cell.total, cell.left_out) for key, cell in found.items()}
    # All is the sum of the categories.
    assert counted == {("all", ""): (1, 2, 2), ("category", "colour"): (1, 1, 1), ("category", "place"): (0, 1, 1)}


def test_pairs_know_which_option_is_yes_whatever_their_order(judged) -> None:
    one = picture(1)
    words = ("没有", "有")
    samples = judged([(yes_no("A", words, image=one), "没有"), (yes_no("B", words, image=one), "有")], code="zh")
    assert count(measure(NANO, "pairs"), samples) == (1, 1, 0)


def test_circular_groups_need_every_rotation(judged) -> None:
    rows = [(7, "A"), (1_000_007, "B"), (2_000_007, "C"), (8, "A"), (1_000_008, "B"), (9, "D"), (3_000_010, "A")]
    answers = ["A", "B", "C", "A", "C", "D", "A"]
    pairs = [(choice(letter, index=index), answer) for (index, letter), answer in zip(rows, answers, strict=True)]
    samples = judged(pairs, MMBENCH)
    # 7 all right, 8 fails a rotation, 9 has none, 10 has no row below 10**6 and is not counted.
    assert count(measure(MMBENCH, "circular"), samples) == (2, 3, 1)
    assert count(measure(MMBENCH, "all"), samples) == (6, 7, 0)


def test_an_interval_of_rotations_is_as_wide_as_that_of_their_questions(judged) -> None:
    pairs = [
        (choice("A", index=number + 10**6 * turn), "A" if number < 6 else "B")
        for number in range(8)
        for turn in range(4)
    ]
    found = {cell.measure: cell for cell in cells(MMBENCH, judged(pairs, MMBENCH)) if cell.level == "all"}
    assert (found["circular"].right, found["circular"].total, found["circular"].questions) == (6, 8, None)
    assert (found["all"].right, found["all"].total, found["all"].questions) == (24, 32, 8)
    assert found["all"].interval == found["circular"].interval
    # A benchmark without rotations has an interval of its rows.
    (plain,) = (cell for cell in cells(MMMB, judged(pairs, MMMB)) if (cell.measure, cell.level) == ("all", "all"))
    assert plain.interval[0] > found["all"].interval[0]


def test_circular_scoring_wants_numbers(judged) -> None:
    with pytest.raises(InputError, match="circular scoring needs numbers"):
        count(measure(MMBENCH, "circular"), judged([(choice("A", index="x1"), "A")], MMBENCH))


def test_mmmb_counts_yes_no_rows_in_plain_accuracy_too(judged) -> None:
    samples = judged([(choice("A"), "A"), (yes_no("B"), "A")], MMMB)
    assert count(measure(MMMB, "all"), samples) == (1, 2, 0)


@pytest.mark.parametrize("name", ["MMMB", "MMBench_dev"])
def test_rows_without_options_are_counted_apart(judged, name: str) -> None:
    benchmark = BENCHMARKS[name]
    samples = judged([(choice("A"), "A"), (open_row("a cat"), "A cat."), (open_row("a cat"), "A dog.")], benchmark)
    assert count(measure(benchmark, "all"), samples) == (1, 1, 0)
    assert count(measure(benchmark, "open"), samples) == (1, 2, 0)


def test_cells_by_language_and_category(judged) -> None:
    english = judged(
        [
            (choice("A", category="colour", **{"l2-category": "attribute"}), "A"),
            (choice("A", category="colour", **{"l2-category": "attribute"}), "B"),
            (choice("A", category="count", **{"l2-category": "number"}), "A"),
        ]
    )
    turkish = judged([(choice("A", category="colour"), "B")], code="tr")
    found = {
        (cell.language, cell.level, cell.group): (cell.right, cell.total)
        for cell in cells(NANO, [*english, *turkish])
        if cell.measure == "choice"
    }
    assert found == {
        ("en", "all", ""): (2, 3),
        ("en", "category", "colour"): (1, 2),
        ("en", "category", "count"): (1, 1),
        ("en", "l2-category", "attribute"): (1, 2),
        ("en", "l2-category", "number"): (1, 1),
        ("tr", "all", ""): (0, 1),
        ("tr", "category", "colour"): (0, 1),
    }


def test_spread_between_best_and_worst_language() -> None:
    found = [
        Cell("choice", "en", "all", "", 9, 10),
        Cell("choice", "tr", "all", "", 7, 10),
        Cell("choice", "ru", "all", "", 8, 10),
        Cell("choice", "ar", "all", "", 0, 0),  # nothing counted: not the worst
        Cell("choice", "pt", "category", "colour", 0, 10),  # a category is not a language
        Cell("open", "en", "all", "", 1, 2),  # one language has no spread
    ]
    result = spreads(found)
    assert set(result) == {"choice"}
    assert (result["choice"].best, result["choice"].worst) == ("en", "tr")
    assert result["choice"].points == pytest.approx(20)
