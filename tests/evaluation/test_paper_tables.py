"""The paper's tables with our rows under theirs, in three formats."""

import csv
import io
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner
from saved_runs import save_run
from tsv_files import choice, picture, yes_no

from parrot_evaluation.beside import build
from parrot_evaluation.cli import main
from parrot_evaluation.grids import Entry, Grid, GridRow, latex_text, render
from parrot_evaluation.paper_tables import NUMBERS, paper_table, parse_numbers
from parrot_evaluation.results import Result, read_results
from parrot_runtime.errors import InputError

ROWS = [*(choice("B") for _ in range(8)), yes_no("A", image=picture(9)), yes_no("B", image=picture(9))]


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def mmmb(make_tsv, tmp_path) -> Path:
    """A run over English and Turkish only: all four-option rows right in English, half of all rows in Turkish."""
    files = [make_tsv(f"mmmb_{code}.tsv", ROWS) for code in ("en", "tr")]
    answers = {"en": iter("BBBBBBBBAB"), "tr": iter("BBBBAAAAAA")}
    save_run(tmp_path / "m", files, lambda q: next(answers[q.language]), benchmark="MMMB", model="mine 7B_fp16 & co")
    return tmp_path / "m"


def printed() -> list[dict[str, str]]:
    """Every row of the shipped files."""
    folder = resources.files("parrot_evaluation") / "paper"
    texts = [(folder / f"{name}.csv").read_text("utf-8") for name in ("multilingual", "encoders", "llavabench")]
    return [row for text in texts for row in csv.DictReader(io.StringIO(text))]


def test_every_printed_row_stands_in_its_table() -> None:
    assert sorted({int(row["table"]) for row in printed()}) == list(NUMBERS)
    for number in NUMBERS:
        published = paper_table(number)
        wanted = [row for row in printed() if row["table"] == str(number)]
        grid = build(published, [])
        assert len(grid.rows) == len(wanted) > 0
        for row, source in zip(grid.rows, wanted, strict=True):
            values = [source[column.key] for column in published.columns]
            assert [entry.value if entry else "" for entry in row.entries] == values
            assert [name for name in row.names if name] == [source[key] for key, _ in published.names if source[key]]


def test_the_papers_figures_get_no_interval_and_no_n() -> None:
    entries = [entry for number in NUMBERS for row in build(paper_table(number), []).rows for entry in row.entries]
    assert all((e.low, e.high, e.total) == (None, None, None) for e in entries if e)
    assert any(e.value == "53.10" for e in entries if e)  # the last zero is the paper's


def test_a_few_figures_read_from_the_paper() -> None:
    """Table 1's last row, Table 12's 14B and Table 8's Chinese-CLIP, read off the page."""
    parrot = build(paper_table(1), []).rows[-1]
    assert [e.value for e in parrot.entries] == ["78.02", "77.16", "76.76", "75.92", "74.05", "77.71"]
    assert parrot.names == ("PARROT", "Qwen2-7B", "MMBench")
    larger, chinese = build(paper_table(12), []).rows[1], build(paper_table(8), []).rows[2]
    assert [e.value for e in larger.entries] == ["73.9", "71.6", "69.8", "68.1", "64.3", "70.1"]
    assert [e.value for e in chinese.entries] == ["68.1", "68.3", "67.6", "66.1"]


def test_our_rows_have_n_scoring_and_interval_and_gaps_where_a_language_is_missing(mmmb) -> None:
    grid = build(paper_table(1), read_results([str(mmmb)]))
    ours = {row.scoring: row for row in grid.rows if row.source == "ours"}
    assert list(ours) == ["all", "all_kit", "pairs"]
    english, chinese, *_, turkish, _ = ours["all"].entries
    assert (english.value, english.total) == ("100.0", 10)
    assert english.low == pytest.approx(72.25, abs=0.01)  # Wilson: 10 of 10
    assert chinese is None
    assert (turkish.value, turkish.total) == ("50.0", 10)
    assert ours["pairs"].entries[0].total == 1
    assert ours["all"].names == ("mine 7B_fp16 & co", "", "MMMB")
    assert all(row.comparable for row in ours.values())


def test_a_run_of_pairs_alone_has_one_row_of_them(make_tsv, tmp_path) -> None:
    pair = [yes_no("A", image=picture(9)), yes_no("B", image=picture(9))]
    save_run(tmp_path / "n", [make_tsv("nano_en.tsv", pair)], lambda question: "A")
    rows = build(paper_table(6), read_results([str(tmp_path / "n")])).rows
    assert [row.scoring for row in rows if row.source == "ours"] == ["pairs"]


def test_rows_of_another_benchmark_are_set_apart(make_tsv, tmp_path) -> None:
    save_run(tmp_path / "n", [make_tsv("nano_en.tsv", ROWS)], lambda question: "B")
    results = read_results([str(tmp_path / "n")])
    grid = build(paper_table(6), results, ["choice"])
    assert [row.comparable for row in grid.rows if row.source == "ours"] == [False]
    assert any("cannot be compared" in note for note in grid.notes)
    assert "measured here; not comparable with the rows above" in render([grid], "latex")
    assert not [row for row in build(paper_table(8), results).rows if row.source == "ours"]


def test_table_8_joins_a_models_two_benchmarks(mmmb, make_tsv, tmp_path) -> None:
    file = make_tsv("mmbench_dev_en.tsv", [choice("B", index=n) for n in range(3)])
    save_run(tmp_path / "b", [file], lambda q: "B", benchmark="MMBench_dev", model="mine 7B_fp16 & co")
    grid = build(paper_table(8), read_results([str(tmp_path / "b"), str(mmmb)]))
    ours = [row for row in grid.rows if row.source == "ours"]
    assert [row.scoring for row in ours] == ["circular / all", "circular_kit / all_kit", "pairs"]
    assert [entry and entry.total for entry in ours[0].entries] == [3, None, 10, None]


def test_notes_tell_two_benchmarks_of_one_model_apart(make_tsv, tmp_path) -> None:
    both = {"MMMB": "mmmb_en.tsv", "MMBench_dev": "mmbench_dev_en.tsv"}
    for name, file in both.items():
        made = make_tsv(file, [choice("B", index=n) for n in range(3)])
        limit = 2 if name == "MMMB" else None
        save_run(tmp_path / name, [made], lambda q: "B", benchmark=name, model="mine", limit=limit)
    for folders in (list(both), list(reversed(both))):
        results = read_results([str(tmp_path / name) for name in folders])
        notes = build(paper_table(1), results, ["all"]).notes
        assert any(note.startswith("MMMB, all: kit scoring: every row by itself") for note in notes)
        assert any(note.startswith("MMBench_dev, all: every rotation by itself") for note in notes)
        assert any(note.startswith("mine, MMMB: about 2 questions of each language, not all") for note in notes)
    # Of a result that has no row in a table nothing is said under it.
    other = make_tsv("nano_en.tsv", [choice("B")])
    save_run(tmp_path / "n", [other], lambda q: "B", model="other", instruction="kit-group")
    mixed = read_results([str(tmp_path / "MMMB"), str(tmp_path / "n")])
    assert not [note for note in build(paper_table(8), mixed).notes if "kit-group" in note or "choice" in note]


def test_table_4_takes_a_judges_scores_without_an_interval() -> None:
    scores = [
        {"measure": "relative", "language": "en", "group": group, "value": value, "total": 20}
        for group, value in (("conv", 71.25), ("overall", 70.0), ("detail", None))
    ]
    report = {"benchmark": "LLaVA-Bench", "model": "x", "settings": {}, "measures": {}, "cells": [], "scores": scores}
    grid = build(paper_table(4), [Result(Path("r"), "x", report | {"data": {"en": {}}})])
    (ours,) = (row for row in grid.rows if row.source == "ours")
    assert ours.entries[:4] == (Entry("71.2", total=20), None, None, Entry("70.0", total=20))
    assert "71.2 (20)" in render([grid], "markdown")
    assert "no interval" in " ".join(grid.notes)
    assert not ours.comparable
    assert "cannot be compared" in " ".join(grid.notes)


def test_csv_has_a_line_per_figure(mmmb) -> None:
    text = run("tables", mmmb, "--table", "1,12", "--format", "csv").stdout
    lines = list(csv.DictReader(io.StringIO(text)))
    ours = [line for line in lines if line["source"] == "ours" and line["table"] == "12" and line["scoring"] == "all"]
    assert [(line["column"], line["value"], line["n"]) for line in ours] == [
        ("en", "100.0", "10"),
        ("tr", "50.0", "10"),
    ]
    assert ours[0]["low_95"] == "72.25"
    theirs = [line for line in lines if line["source"] == "paper"]
    assert len(theirs) == 6 * sum(row["table"] in ("1", "12") for row in printed())
    assert {(line["low_95"], line["high_95"], line["n"]) for line in theirs} == {("", "", "")}


def test_markdown(mmmb) -> None:
    text = run("tables", f"mine={mmmb}", "--table", "7", "--measure", "all_kit").stdout
    assert "### Table 7" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| ours"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:8] == ["ours", "mine", "", "", "MMMB", "all_kit", "100.0 [72.2–100.0] (10)", ""]
    assert "arXiv 2406.02539" in text
    assert "all_kit: kit scoring" in text


def test_a_file_is_written_once(mmmb, tmp_path) -> None:
    out = tmp_path / "table.tex"
    assert run("tables", mmmb, "--format", "latex", "-o", out).exit_code == 0
    before = out.read_bytes()
    assert run("tables", mmmb, "-o", out).exit_code == 2
    assert out.read_bytes() == before
    assert run("tables", mmmb, "-o", out, "--force").exit_code == 0
    assert out.read_bytes() != before


def test_table_numbers() -> None:
    assert parse_numbers([]) == list(NUMBERS)
    assert parse_numbers(["14, 1", "6-8"]) == [1, 6, 7, 8, 14]
    assert parse_numbers(["9-14"]) == [9, 10, 11, 12, 14]  # Table 13 is the settings of training
    for wrong in ("13", "2-3", "x", "1-", "-1", ""):
        with pytest.raises(InputError):
            parse_numbers([wrong])


def test_a_measure_that_no_result_has(mmmb) -> None:
    result = run("tables", mmmb, "--measure", "chioce")
    assert result.exit_code == 2
    assert "they have all, all_kit, pairs" in result.stderr


HOSTILE = '\\input{x} 50% & $a_1^2$ #{~}<|>"\x00[b] é ü ı'


def test_latex_escapes() -> None:
    text = latex_text(HOSTILE)
    assert r"\textbackslash{}input\{x\} 50\% \& \$a\_1\textasciicircum{}2\$ \#\{\textasciitilde{}\}" in text
    assert "\x00" not in text
    # Whatever is left of the special characters stands behind a backslash or in braces of our own.
    assert not re.search(r"(?<!\\)[%&$#_]", text)
    # Nor does LaTeX make one character of two.
    assert latex_text("models--x ---y ``q'' a,,b ?`") == "models-{}-x -{}-{}-y `{}`q'{}' a,{},b ?{}`"
    assert latex_text("1–2 α −3") == r"1--2 $\alpha$ $-$3"


@pytest.mark.parametrize("runs", [1, 2, 3, 6])
def test_latex_compiles_and_nothing_runs_off_the_page(mmmb, tmp_path, runs: int) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    hostile = Grid(
        1, HOSTILE, (HOSTILE,), ("en",), (GridRow("ours", (f"[{HOSTILE}",), "x_y", (Entry("1"),)),), (HOSTILE,)
    )
    results = read_results([f"models--run-{number}={mmmb}" for number in range(runs)])
    grids = [*(build(paper_table(number), results) for number in NUMBERS), hostile]
    (tmp_path / "tables.tex").write_text(render(grids, "latex"), "utf-8")
    (tmp_path / "page.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,textcomp,longtable}"
        r"\usepackage[T1]{fontenc}\begin{document}\input{tables}\end{document}"
    )
    ended = subprocess.run(
        ["pdflatex", "-interaction=batchmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    log = (tmp_path / "page.log").read_text("latin-1")
    assert ended.returncode == 0, log[-2000:]
    assert "Float too large" not in log
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
