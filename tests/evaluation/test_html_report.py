"""``parrot-eval report``: one file that loads nothing, and that no answer can break out of."""

import base64
import dataclasses
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from saved_runs import row_of, save_run
from tsv_files import COLUMNS, choice, open_row, picture, yes_no

from parrot_evaluation.cli import main
from parrot_evaluation.html_report import page
from parrot_evaluation.markup import Markup, element, escape
from parrot_evaluation.results import read_results
from parrot_evaluation.runner import Response
from parrot_evaluation.tsv import read_tsv
from parrot_evaluation.worst import thumbnail, worst
from parrot_runtime.errors import InputError

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover='alert(1)&lt; \x00\x1b\u202eevil"
)
EMPTY = {"img", "meta", "br"}
ROWS = [
    *(choice("B", category="colour", question=f"{HOSTILE} {n}?", hint=HOSTILE) for n in range(3)),
    *(choice("B", HOSTILE, "a cat", category=HOSTILE) for _ in range(2)),
    yes_no("A", image=picture(9)),
    open_row("red"),
]


class Tree(HTMLParser):
    """The elements of a page, with their attributes and texts; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, class_: str | None = None) -> list[dict]:
        return [found for name, found in self.elements if name == tag and class_ in (None, found.get("class"))]


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def files(make_tsv) -> list[Path]:
    return [make_tsv(f"nano_{code}.tsv", ROWS) for code in ("en", "ar")]


@pytest.fixture
def runs(files, tmp_path) -> tuple[Path, Path]:
    """The first run says something hostile to everything; the second has all right but row 1 and the open one, 6."""
    save_run(tmp_path / "a", files, lambda question: f"{HOSTILE} \ud800", model=HOSTILE)
    answers = {"1": "A", "5": "A", "6": "The one that is here is yellow"}
    save_run(tmp_path / "b", files, lambda question: answers.get(row_of(question), "B"), model="second")
    return tmp_path / "a", tmp_path / "b"


@pytest.fixture
def report(runs, files, tmp_path) -> str:
    out = tmp_path / "report.html"
    result = run("report", *runs, "--data", files[0].parent, "-o", out, "--no-plots")
    assert result.exit_code == 0, result.output
    return out.read_text("utf-8")


def test_hostile_text_stays_text(report) -> None:
    tree = Tree(report)
    assert len(tree.all("script")) == 1
    assert "alert" not in re.search(r"<script>(.*?)</script>", report, re.DOTALL)[1]
    assert not [name for _, found in tree.elements for name in found if name.startswith("on")]
    for control in ("\x00", "\x1b"):
        assert control not in report
    # It is shown as it came, but for control characters and half a surrogate pair.
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert any(text.endswith("\\ud800") and text.startswith(shown) for text in tree.texts)
    assert {found["src"][:22] for found in tree.all("img")} == {"data:image/jpeg;base64"}
    categories = {found["data-category"] for found in tree.all("article")}
    assert f"c{shown}" in categories


def test_nothing_is_loaded_and_only_this_script_may_run(report) -> None:
    tree = Tree(report)
    for name, found in tree.elements:
        assert not {"href", "srcset", "action", "style"} & set(found), name
        assert found.get("src", "data:").startswith("data:")
    assert not tree.all("link")
    assert "url(" not in report
    assert "@import" not in report
    policy = next(
        found["content"] for found in tree.all("meta") if "content-security" in found.get("http-equiv", "").lower()
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", report, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_text_has_its_language_and_finds_its_direction(report) -> None:
    tree = Tree(report)
    questions = tree.all("p", "question")
    assert {(found["lang"], found["dir"]) for found in questions} == {("en", "auto"), ("ar", "auto")}
    assert {(found["lang"], found["dir"]) for found in tree.all("td", "answer")} == {("en", "auto"), ("ar", "auto")}
    assert "العربية" in tree.texts


def test_filters(report) -> None:
    tree = Tree(report)
    assert [found["name"] for found in tree.all("select")] == ["language", "category", "wrong"]
    (filters,) = tree.all("div", "filters")
    assert "hidden" in filters  # the script shows them: without one, every sample is there
    assert not [found for found in tree.all("article") if "hidden" in found]
    wanted = {found["value"] for found in tree.all("option")}
    for article in tree.all("article"):
        assert {article["data-language"], article["data-category"], *article["data-wrong"].split()} <= wanted


def test_figures_come_with_interval_and_n(report) -> None:
    text = "".join(Tree(report).texts)
    # Four-option rows of the second run: four of five right, by hand and with Wilson's interval.
    assert "80.0[37.6–96.4] (5)" in text
    assert "0.0[0.0–43.4] (5)" in text
    assert "kit scoring: four-option rows right" in text


def test_the_worst_come_first(runs, files) -> None:
    results = read_results([str(each) for each in runs])
    tables = [read_tsv(file) for file in files]
    shown = worst(results, tables, 3)
    assert [each.row.language for each in shown] == ["en"] * 3 + ["ar"] * 3
    assert all(each.wrong == [0, 1] for each in shown[:2])
    # Row 1 and the open one: wrong in both runs.
    assert {each.row.index for each in shown[:2]} == {"1", "6"}
    # Answered in another language, which is worse than in letters.
    assert shown[3].row.index == "6"
    # Elsewhere the first run alone is wrong.
    assert len(worst(results, tables, 100)) == 14
    assert worst(results, tables, 0) == []


def test_files_that_are_not_those_of_the_run_are_refused(runs, make_tsv, tmp_path) -> None:
    (tmp_path / "x").mkdir()
    for code in ("en", "ar"):
        make_tsv(f"x/nano_{code}.tsv", ROWS[:-1])
    out = tmp_path / "report.html"
    result = run("report", *runs, "--data", tmp_path / "x", "-o", out, "--no-plots")
    assert result.exit_code == 2
    assert "not the file that" in result.stderr
    assert not out.exists()
    with pytest.raises(InputError, match="SHA-256"):
        worst(read_results([str(runs[0])]), [read_tsv(tmp_path / "x" / "nano_en.tsv")], 1)


def test_without_samples_no_data_is_needed(runs, tmp_path, make_tsv) -> None:
    out = tmp_path / "report.html"
    assert run("report", runs[0], "--samples", 0, "--no-plots", "-o", out).exit_code == 0
    assert not Tree(out.read_text("utf-8")).all("article")
    before = out.read_bytes()
    assert run("report", runs[1], "--samples", 0, "--no-plots", "-o", out).exit_code == 2
    assert out.read_bytes() == before
    save_run(tmp_path / "m", [make_tsv("mmmb_en.tsv", ROWS[:2])], lambda question: "B", benchmark="MMMB")
    result = run("report", runs[0], tmp_path / "m", "--samples", 0, "-o", out, "--force")
    assert "one report shows one benchmark, these results are of nano and MMMB" in result.stderr


def test_scores_that_are_more_than_shares_are_shown_without_an_interval(make_tsv, tmp_path) -> None:
    rows = [{"answer": answer, "category": "count", "image": picture(4)} for answer in ("Yes", "No")]
    save_run(tmp_path / "m", [make_tsv("MME.tsv", rows)], lambda question: "Yes", benchmark="MME")
    out = tmp_path / "report.html"
    assert run("report", tmp_path / "m", "--samples", 0, "--no-plots", "-o", out).exit_code == 0
    text = "".join(Tree(out.read_text("utf-8")).texts)
    assert "count50.0 of 200(2)" in text  # acc 50 and acc+ 0
    assert "perception is the sum of 1 of 10 categories" in text


def test_answers_left_to_a_judge_are_not_called_wrong(make_tsv, tmp_path) -> None:
    rows = [{"answer": "A dog.", "category": "conv", "image": picture(4), "gpt4_ans": "x", "caption": "x"}]
    file = make_tsv("LLaVABench.tsv", rows, [*COLUMNS, "gpt4_ans", "caption"])
    save_run(tmp_path / "m", [file], lambda question: "A cat is what it shows.", benchmark="LLaVA-Bench")
    path = tmp_path / "m" / "report.json"
    report = json.loads(path.read_text("utf-8"))
    report["settings"]["judge"] = {"model": "a judge", "both_orders": True, "prompt_sha256": "0" * 64, "fields": {}}
    path.write_text(json.dumps(report | {"settings": report["settings"] | {"refused": 2}}))
    out = tmp_path / "judged.html"
    assert run("report", tmp_path / "m", "--samples", 0, "-o", out).exit_code == 0
    tree = Tree(out.read_text("utf-8"))
    text = "".join(tree.texts)
    assert "tiny fp16: 2 refused or impossible to ask, counted as wrong; judged by a judge, in both orders" in text
    assert "model a judge, both orders True, prompt sha256 000000000000…" in text
    # What is drawn are languages, and no chart calls an answer right.
    assert "answers in the language asked, per cent" in text
    assert "per cent right by language" not in text
    result = run("report", tmp_path / "m", "--data", file.parent, "--no-plots", "-o", tmp_path / "r.html")
    assert result.exit_code == 2
    assert "no answer is right or wrong; give --samples 0" in result.stderr


def test_pictures_are_thumbnails(make_tsv) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((900, 300), 90).save(buffer, "PNG")
    big = base64.b64encode(buffer.getvalue()).decode("ascii")
    row = read_tsv(make_tsv("nano_en.tsv", [choice("A", image=big)])).rows[0]
    uri, width, height = thumbnail(row, 96)
    assert (width, height) == (96, 32)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (96, 32))
    assert len(uri) < 6000 < len(big)


def test_a_picture_that_cannot_be_read_is_told_in_its_place(make_tsv, tmp_path) -> None:
    cut = base64.b64encode(base64.b64decode(picture(3))[:-30]).decode("ascii")
    file = make_tsv("nano_en.tsv", [choice("B", image=cut), choice("B")])
    save_run(tmp_path / "m", [file], lambda question: Response("", "refused") if row_of(question) == "0" else "C")
    out = tmp_path / "r.html"
    result = run("report", tmp_path / "m", "--data", file.parent, "--no-plots", "-o", out)
    assert result.exit_code == 0, result.output
    tree = Tree(out.read_text("utf-8"))
    assert (len(tree.all("article")), len(tree.all("img")), len(tree.all("p", "meta unseen"))) == (2, 1, 1)
    assert [text for text in tree.texts if text.startswith("en row 0 (line 2)")]


def test_arabic_names_side_by_side_keep_their_places(files, runs, tmp_path) -> None:
    out = tmp_path / "report.html"
    result = run("report", f"أول={runs[0]}", f"ثان={runs[1]}", "--samples", 0, "--no-plots", "-o", out)
    assert result.exit_code == 0, result.output
    text = out.read_text("utf-8")
    assert "<title>nano: \u2068أول\u2069, \u2068ثان\u2069</title>" in text
    assert "<h1>nano: <bdi>أول</bdi>, <bdi>ثان</bdi></h1>" in text
    assert "<caption>\u2068أول\u2069: choice by category</caption>" in text
    samples = worst(read_results([str(runs[0])]), [read_tsv(files[1])], 1)
    shown = dataclasses.replace(samples[0].row, category="لون", l2_category="صفة")
    samples = [dataclasses.replace(samples[0], row=shown)]
    assert "<bdi>صفة</bdi> · <bdi>لون</bdi> · " in page(read_results([str(runs[0])]), samples, [], side=32)


def test_a_long_answer_is_cut_and_its_length_told(files, tmp_path) -> None:
    save_run(tmp_path / "long", files, lambda question: "x" * 50_000)
    results = read_results([str(tmp_path / "long")])
    text = page(results, worst(results, [read_tsv(files[0])], 5), [], side=32)
    assert "(48,800 characters more)" in text
    assert len(text) < 60_000


def test_charts_are_inside(runs, files, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out = tmp_path / "report.html"
    result = run("report", f"a={runs[0]}", f"b={runs[1]}", "--data", files[0].parent, "-o", out)
    assert result.exit_code == 0, result.output
    charts = [found for found in Tree(out.read_text("utf-8")).all("img") if found["src"].startswith("data:image/svg")]
    assert [chart["alt"] for chart in charts] == [
        "choice: per cent right by language",
        "answers in the language asked, per cent",
        "choice from run to run",
    ]
    for chart in charts:
        svg = base64.b64decode(chart["src"].partition(",")[2]).decode("utf-8")
        assert "</svg>" in svg
        assert {reference[0] for reference in re.findall(r'href="([^"]*)"', svg)} == {"#"}


def test_without_matplotlib_the_way_out_is_named(runs, tmp_path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("report", runs[0], "--samples", 0, "-o", tmp_path / "r.html")
    assert result.exit_code == 2
    assert "pip install 'parrot-edge[plots]'" in result.stderr
    assert not (tmp_path / "r.html").exists()


def test_markup() -> None:
    assert element("p", "a<b", Markup("<br>"), ["c", ["d&"]], class_='x"y', data_n=3, hidden=True, lang=None) == (
        '<p class="x&quot;y" data-n="3" hidden>a&lt;b<br>cd&amp;</p>'
    )
    assert escape("\ud800\x07\t\n") == "\\ud800\ufffd\t\n"
    json.dumps(element("i", "\ud800"), ensure_ascii=False).encode("utf-8")
