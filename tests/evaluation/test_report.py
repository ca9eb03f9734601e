import json
import re
from dataclasses import replace

import pytest
from tsv_files import choice, open_row, picture, yes_no

from parrot_evaluation import tables
from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.report import build, sample_data, to_data
from parrot_evaluation.runner import evaluate
from parrot_evaluation.tsv import read_tsv

RESPONSES = {"en": ["B", "b", "A", "B", "Red.", "It is here"], "tr": ["B", "C", "A", "A", "Kırmızı.", "The red one"]}


@pytest.fixture
def report_and_samples(make_tsv):
    one = picture(1)
    rows = [
        choice("B", category="colour"),
        choice("B", category="count"),
        yes_no("A", image=one),
        yes_no("B", image=one),
        open_row("red"),
        open_row("here"),
    ]
    read = [read_tsv(make_tsv(f"nano_{code}.tsv", rows)) for code in RESPONSES]

    def ask(questions):
        return [RESPONSES[question.language][int(question.name.split()[2])] for question in questions]

    samples = evaluate(BENCHMARKS["nano"], read, ask)
    return build(BENCHMARKS["nano"], read, samples, model="tiny fp16", settings={"limit": None}), samples


def test_the_report_as_data(report_and_samples) -> None:
    report, _ = report_and_samples
    data = json.loads(json.dumps(to_data(report), allow_nan=False))
    assert (data["benchmark"], data["model"], data["schema_version"]) == ("nano", "tiny fp16", 1)
    assert data["data"]["tr"]["file"] == "nano_tr.tsv"
    assert (data["data"]["tr"]["asked"], len(data["data"]["tr"]["sha256"])) == (6, 64)
    cells = {(c["measure"], c["language"]): c for c in data["cells"] if c["level"] == "all"}
    assert cells["choice", "en"]["value"] == 100
    assert cells["choice_kit", "en"]["value"] == 50  # the small letter
    assert (cells["choice", "tr"]["right"], cells["choice", "tr"]["total"]) == (1, 2)
    assert (cells["pairs", "en"]["value"], cells["pairs", "tr"]["value"]) == (100, 0)
    assert cells["language", "tr"]["value"] == 50  # one answer of the two determined is English
    assert cells["language", "tr"]["left_out"] == 4
    assert cells["choice", "tr"]["interval_95"] == pytest.approx([9.45, 90.55], abs=0.01)
    assert data["spread"]["choice"] == {"measure": "choice", "best": "en", "worst": "tr", "points": 50}
    assert data["disagreements"] == 1


def test_samples_as_data(report_and_samples) -> None:
    _, samples = report_and_samples
    data = [json.loads(json.dumps(sample_data(sample))) for sample in samples]
    assert (data[1]["letter"], data[1]["right"], data[1]["kit_letter"], data[1]["kit_right"]) == (
        "B",
        True,
        None,
        False,
    )
    assert (data[4]["kind"], data[4]["right"], data[4]["kit_right"]) == ("open", True, None)


def test_the_tables_say_it_all(report_and_samples) -> None:
    report, _ = report_and_samples
    text = tables.markdown(report, by_category=True)
    lines = text.splitlines()
    header = next(line for line in lines if "four-option" in line)
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        *("language", "four-option", "four-option (kit)", "pairs", "yes/no", "yes/no (kit)", "open", "language")
    ]
    english = next(line for line in lines if line.startswith("| en English"))
    assert [cell.strip() for cell in english.strip("|").split("|")][1:] == [
        *("100.0 (2)", "50.0 (2)", "100.0 (1)", "100.0 (2)", "100.0 (2)", "50.0 (2)", "100.0 (2)")
    ]
    assert "| spread, points" in text
    assert "9.5–90.5" in text
    assert "kit scoring" in text
    assert "paper scoring" in text
    assert "### four-option, by category" in text
    assert "| count " in text
    assert "by category" not in tables.markdown(report)


def test_disagreements_are_listed(report_and_samples) -> None:
    report, _ = report_and_samples
    text = tables.disagreements(report)
    assert "differently: 1" in text
    assert "| en " in text
    assert "letter alone" in text


def test_what_a_model_said_is_no_markdown(make_tsv) -> None:
    said = r"*b* <img src=x> [go](http://x.org) www.x.org `c` &amp; | \| $x$ _d_"
    read = [read_tsv(make_tsv("nano_en.tsv", [choice("B")]))]
    samples = evaluate(BENCHMARKS["nano"], read, lambda questions: [f"B\n{said}"])
    samples = [replace(samples[0], kit="A")]
    text = tables.disagreements(build(BENCHMARKS["nano"], read, samples, model="x", settings={}))
    escaped = r"\*b\* \<img src=x\> \[go\](http\://x.org) www\.x.org \`c\` \&amp; \| \\\| \$x\$ \_d\_"
    assert f"B {escaped} |" in text
    # As the specification of CommonMark has it, a backslash before a mark stands for the mark alone.
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", escaped) == said


def test_a_chinese_character_takes_two_columns() -> None:
    text = tables.table(["name", "n"], [["猫猫", "1"], ["кот", "22"]])
    assert text == "| name |   n |\n|------|----:|\n| 猫猫 |   1 |\n| кот  |  22 |"


def test_every_line_of_a_table_is_as_wide_in_a_terminal() -> None:
    text = tables.table(["类别", "en"], [["颜色", "1"], ["a|b\nc", "22"], ["القط", "333"], ["e\u0301te\u0301", "4"]])
    widths = {tables._width(line) for line in text.splitlines()}
    assert len(widths) == 1
    assert "a\\|b c" in text
    assert text.splitlines()[1].startswith("|---")
    assert text.splitlines()[1].endswith(":|")


def test_pictures_without_a_pair_and_a_licence_are_told(make_tsv) -> None:
    read = [read_tsv(make_tsv("mmmb_en.tsv", [yes_no("A"), choice("A", image="")]), skip_missing_images=True)]
    samples = evaluate(BENCHMARKS["MMMB"], read, lambda questions: ["Yes"] * len(questions))
    text = tables.markdown(build(BENCHMARKS["MMMB"], read, samples, model="x", settings={}))
    assert "1 pictures without both questions left out" in text
    assert "1 rows without a picture were left out" in text
    assert "CC BY-NC-SA 4.0" in text


def test_a_limited_run_says_what_was_asked_and_nothing_of_the_rest(make_tsv) -> None:
    benchmark = BENCHMARKS["RealWorldQA"]
    # Twelve good rows and one whose answer is none of its options, which the kit counts as wrong where it is asked.
    rows = [choice("B") for _ in range(12)] + [choice("C", "left", "right")]
    table = read_tsv(make_tsv("RealWorldQA.tsv", rows), language="en", as_published=True)
    for limit, some, wrong in ((5, True, None), (500, False, "1 rows"), (None, False, "1 rows")):
        samples = evaluate(benchmark, [table], lambda questions: ["B"] * len(questions), limit=limit)
        asked_it = any(sample.row.unanswerable for sample in samples)
        assert asked_it == (wrong is not None)
        text = tables.markdown(build(benchmark, [table], samples, model="m", settings={"limit": limit}))
        assert ("not all" in text) == some
        assert ("count as wrong, as in VLMEvalKit" in text) == asked_it
