"""MME's sums, from files in the kit's format, and LLaVA-Bench's ratios, worked out by hand."""

import pytest
from tsv_files import picture

from parrot_evaluation import tables
from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.composite import MME_CATEGORIES, all_notes, judge_scores
from parrot_evaluation.judge import Judged, Judgement
from parrot_evaluation.report import build, to_data
from parrot_evaluation.runner import evaluate
from parrot_evaluation.scoring import judge
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import InputError

MME, LLAVA = BENCHMARKS["MME"], BENCHMARKS["LLaVA-Bench"]
MME_COLUMNS = ["index", "image", "question", "answer", "category", "image_path"]
ALL = [category for categories in MME_CATEGORIES.values() for category in categories]


def pair(category: str, number: int = 0, answers: tuple[str, str] = ("Yes", "No"), **more: object) -> list[dict]:
    """The two rows of one picture. ``make_tsv`` gives each row another, so nothing but the path pairs them."""
    path = {
        "image_path": f"{category}/{number}.jpg",
        "category": category,
        "question": "Is it? Please answer yes or no.",
    }
    return [path | {"answer": answer} | more for answer in answers]


def measured(make_tsv, rows: list[dict], answers: list[str], name: str = "MME.tsv", language: str = "en"):
    read = read_tsv(make_tsv(name, rows, MME_COLUMNS), language=language, form=MME.form)
    given = iter(answers)
    samples = evaluate(MME, [read], lambda questions: [next(given) for _ in questions])
    return build(MME, [read], samples, model="m", settings={})


def scores(report, measure: str = "score") -> dict:
    return {score.group: score for score in report.scores if score.measure == measure}


def test_the_whole_of_mme_is_2000_and_800(make_tsv) -> None:
    rows = [row for category in ALL for row in pair(category)]
    found = scores(measured(make_tsv, rows, ["Yes", "No"] * len(ALL)))
    assert (found["perception"].value, found["perception"].maximum) == (2000, 2000)
    assert (found["reasoning"].value, found["reasoning"].maximum) == (800, 800)
    assert all(found[category].value == 200 for category in ALL)
    assert all(score.notes == () for score in found.values())


def test_acc_and_acc_plus_by_hand(make_tsv) -> None:
    rows = [*pair("count", 0), *pair("count", 1), *pair("OCR", 2)]
    # count: 3 of 4 questions and 1 of 2 pictures: 75 + 50. OCR: one of two questions, no picture: 50 + 0.
    report = measured(make_tsv, rows, ["Yes", "no.", "Yes", "Yes", "No", "No"])
    found = scores(report)
    assert (found["count"].value, found["OCR"].value) == (125, 50)
    assert found["perception"].value == 175
    assert report.find("accuracy", "en", "category", "count").value == 75
    assert report.find("plus", "en", "category", "count").value == 50


def test_missing_categories_are_said_and_are_no_zeros(make_tsv) -> None:
    present = [category for category in ALL if category not in ("posters", *MME_CATEGORIES["reasoning"])]
    rows = [row for category in present for row in pair(category)]
    report = measured(make_tsv, rows, ["Yes", "No"] * len(present))
    found = scores(report)
    assert (found["perception"].value, found["perception"].maximum) == (1800, 1800)
    assert found["reasoning"].value is None
    text = tables.markdown(report)
    assert "1800.0 of 1800 (18)" in text
    assert "perception is the sum of 9 of 10 categories, so not to be compared: posters is missing" in text
    assert "reasoning is the sum of 0 of 4 categories" in text
    assert text.count("posters is missing") == 1  # both extractions lack it; it is told once


def test_a_foreign_category_is_in_no_sum(make_tsv) -> None:
    report = measured(make_tsv, [*pair("count"), *pair("sayma")], ["Yes", "No"] * 2)
    assert scores(report)["perception"].value == 200
    assert "en: 'sayma' is no category of MME's and in no sum" in all_notes(report.scores)


def test_pictures_are_paired_by_path_within_a_category(make_tsv) -> None:
    # The same picture under two paths is two pictures, and the same path in two categories is two as well.
    same = picture(5)
    rows = [
        *pair("count", 0, image=same),
        *pair("count", 1, image=same),
        *pair("scene", image=same, image_path="count/0.jpg"),
    ]
    report = measured(make_tsv, rows, ["Yes", "No", "No", "No", "Yes", "No"])
    cell = report.find("plus", "en")
    assert (cell.right, cell.total, cell.left_out) == (2, 3, 0)


def test_a_picture_with_one_question_has_no_acc_plus(make_tsv) -> None:
    report = measured(make_tsv, [*pair("count"), *pair("scene")[:1]], ["Yes", "No", "Yes"])
    assert report.find("plus", "en").left_out == 1
    assert scores(report)["scene"].value is None
    assert "1 pictures without both questions left out" in tables.markdown(report)
    assert any("scene" in note and "no score" in note for note in all_notes(report.scores))


def test_translated_answers_and_both_extractions(make_tsv) -> None:
    rows = [*pair("count", 0, ("Evet", "Hayır")), *pair("count", 1, ("Yes", "No"))]
    report = measured(make_tsv, rows, ["Evet.", "Hayır, yok", "Yes", "No"], "MME_tr.tsv", "tr")
    assert scores(report)["count"].value == 200
    assert scores(report, "score (kit)")["count"].value == 100  # 2 of 4 questions, 1 of 2 pictures


def test_an_answer_that_is_neither_is_a_bad_row(make_tsv) -> None:
    path = make_tsv("MME.tsv", pair("count", 0, ("Yes", "maybe")), MME_COLUMNS)
    with pytest.raises(InputError, match=r"line 3 .*'maybe' is neither Yes nor No"):
        read_tsv(path, language="en", form=MME.form)


def test_mme_asks_the_question_as_it_stands(make_tsv) -> None:
    read = read_tsv(make_tsv("MME.tsv", pair("count"), MME_COLUMNS), language="en", form=MME.form)
    asked = []
    evaluate(MME, [read], lambda questions: [asked.append(question.text) or "Yes" for question in questions])
    assert asked == ["Is it? Please answer yes or no."] * 2


def test_a_limit_keeps_the_two_questions_of_a_picture(make_tsv) -> None:
    rows = [row for number in range(9) for row in pair("count", number)]
    read = read_tsv(make_tsv("MME.tsv", rows, MME_COLUMNS), language="en", form=MME.form)
    samples = evaluate(MME, [read], lambda questions: ["Yes"] * len(questions), limit=5)
    paths = [sample.row.image_path for sample in samples]
    assert len(paths) == 6
    assert {paths.count(path) for path in paths} == {2}


def test_scores_as_data(make_tsv) -> None:
    data = to_data(measured(make_tsv, pair("count"), ["Yes", "No"]))
    found = {(score["measure"], score["group"]): score for score in data["scores"]}
    assert found["score", "count"] == {
        "measure": "score",
        "language": "en",
        "group": "count",
        "value": 200,
        "total": 2,
        "maximum": 200,
        "notes": (),
    }
    assert "missing" in found["score", "reasoning"]["notes"][0]


LLAVA_COLUMNS = ["index", "image", "question", "caption", "gpt4_ans", "category"]


@pytest.fixture
def judged(make_tsv):
    """Judged samples of (category, scores of each order) in English; None is a judgement that cannot be read."""

    def make(*cases: tuple) -> list[Judged]:
        rows = [{"caption": "a cat", "gpt4_ans": "It is a cat.", "category": category} for category, *_ in cases]
        read = read_tsv(make_tsv("LLaVABench.tsv", rows, LLAVA_COLUMNS), language="en", form=LLAVA.form).rows
        return [
            Judged(
                judge(row, "A cat.", LLAVA),
                tuple(Judgement(not place, "text", scores) for place, scores in enumerate(pairs)),
            )
            for row, (_, *pairs) in zip(read, cases, strict=True)
        ]

    return make


def by_name(found: list) -> dict:
    return {(score.measure, score.group): score for score in found}


def test_relative_scores_by_hand(judged) -> None:
    found = by_name(judge_scores(judged(("conv", (8, 6)), ("conv", (10, 9)), ("detail", (5, 5)), ("complex", (4, 2)))))
    # A ratio of means, not a mean of ratios: (6 + 9 + 5 + 2) / (8 + 10 + 5 + 4).
    assert found["relative", "overall"].value == pytest.approx(100 * 22 / 27)
    assert found["relative", "conv"].value == pytest.approx(100 * 15 / 18)
    assert (found["relative", "detail"].value, found["relative", "complex"].value) == (100, 50)
    assert (found["model", "overall"].value, found["reference", "overall"].value) == (55, 67.5)
    assert found["relative", "overall"].total == 4
    assert ("position bias", "overall") not in found


def test_what_cannot_be_read_is_told_and_not_averaged_in(judged) -> None:
    found = by_name(judge_scores(judged(("conv", (8, 6)), ("conv", None), ("complex", None))))
    assert (found["relative", "overall"].value, found["relative", "overall"].total) == (75, 1)
    assert (found["relative", "complex"].value, found["relative", "complex"].total) == (None, 0)
    (note,) = found["relative", "overall"].notes
    assert note.startswith("2 judgements could not be read and 0 were refused")
    assert "2 of 3 questions are not counted (conv 1, complex 1)" in note


def test_both_orders_and_the_bias_of_position(judged) -> None:
    # (reference, model), reference first and then model first: the first answer always gets 2 points more.
    found = by_name(judge_scores(judged(("conv", (8, 6), (6, 8)), ("conv", (9, 5), (7, 7)))))
    assert found["relative", "overall"].value == pytest.approx(100 * 26 / 30)
    assert found["position bias", "overall"].value == pytest.approx((2 + 2 + 4 + 0) / 4)
    assert "gets +2.00 points of 10" in found["relative", "overall"].notes[0]
    assert "changes with the order in 1 of 2 questions" in found["relative", "overall"].notes[0]


def test_a_judge_without_preference_has_no_bias(judged) -> None:
    found = by_name(judge_scores(judged(("conv", (8, 6), (8, 6)), ("detail", (3, 7), (3, 7)))))
    assert found["position bias", "overall"].value == 0
    assert "+0.00 points" in found["relative", "overall"].notes[0]


def test_a_question_needs_both_its_orders(judged) -> None:
    found = by_name(judge_scores(judged(("conv", (8, 4), (8, 4)), ("conv", (1, 10), None))))
    assert (found["relative", "conv"].value, found["relative", "conv"].total) == (50, 1)


def test_a_reference_of_zero_has_no_ratio(judged) -> None:
    assert by_name(judge_scores(judged(("conv", (0, 5)))))["relative", "overall"].value is None
