"""``parrot-eval compare`` and reading runs back."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from saved_runs import row_of, save_run
from tsv_files import choice, picture, yes_no

from parrot_evaluation.cli import main
from parrot_evaluation.results import choose_measure, read_results
from parrot_runtime.errors import InputError

ROWS = [*(choice("B") for _ in range(12)), yes_no("A", image=picture(90)), yes_no("B", image=picture(90))]


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def change(path: Path, number: int, **fields: object) -> None:
    """Give the line ``number`` of a file of JSON lines other ``fields``."""
    lines = path.read_text("utf-8").splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | fields)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def as_older(folder: Path) -> None:
    """Take out of a run's samples what only the journal used to have."""
    path = folder / "samples.jsonl"
    samples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    kept = [{name: value for name, value in each.items() if name not in ("sample", "routing")} for each in samples]
    path.write_text("".join(json.dumps(each) + "\n" for each in kept), "utf-8")


@pytest.fixture
def files(make_tsv) -> list[Path]:
    return [make_tsv(f"nano_{code}.tsv", ROWS) for code in ("en", "tr")]


@pytest.fixture
def runs(files, tmp_path) -> tuple[Path, Path]:
    """The first run has all of English right; the second loses rows 0 to 6 of it, and nothing of Turkish."""
    save_run(tmp_path / "a", files, lambda question: "B")
    save_run(
        tmp_path / "b", files, lambda q: "C" if q.language == "en" and int(row_of(q)) < 7 else "B", model="tiny int4"
    )
    return tmp_path / "a", tmp_path / "b"


def test_what_is_compared(runs) -> None:
    data = json.loads(run("compare", *runs, "--json").stdout)
    found = {(each["measure"], each["language"]): each for each in data["comparisons"]}
    english = found["choice", "en"]
    assert (english["n"], english["first_only"], english["second_only"]) == (12, 7, 0)
    assert english["p"] == pytest.approx(2 / 2**7)
    assert english["p_holm"] == pytest.approx(4 / 2**7)  # of two languages
    assert english["points"] == pytest.approx(-100 * 7 / 12)
    assert english["interval_95"][1] < 0
    assert found["choice", "tr"]["p"] == found["choice", "tr"]["p_holm"] == 1
    assert found["pairs", "en"]["n"] == 1


def test_rotations_of_a_question_are_one_question(make_tsv, tmp_path) -> None:
    rows = [choice("B", index=number + 10**6 * turn) for number in range(9) for turn in range(4)]
    file = make_tsv("mmbench_dev_en.tsv", rows)
    save_run(tmp_path / "a", [file], lambda question: "B", benchmark="MMBench_dev")
    save_run(tmp_path / "b", [file], lambda q: "C" if int(row_of(q)) % 10**6 < 5 else "B", benchmark="MMBench_dev")
    found = json.loads(run("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)["comparisons"]
    by_measure = {each["measure"]: each for each in found}
    for name in ("circular", "all"):
        each = by_measure[name]
        assert (each["n"], each["first_only"], each["p"]) == (9, 5, pytest.approx(2 / 2**5)), name


def test_the_tables(runs) -> None:
    result = run("compare", f"fp16={runs[0]}", f"int4={runs[1]}", "--measure", "choice")
    assert result.exit_code == 0, result.output
    assert "A = fp16, B = int4" in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("| en English"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:7] == ["en English", "12", "100.0", "41.7", "7", "0", "-58.3"]
    assert cells[8:] == ["0.016", "0.031"]
    assert "### yes_no" not in result.stdout
    assert "Tango" in result.stdout


def test_a_shorter_run_is_compared_over_what_both_answered(files, runs, tmp_path) -> None:
    save_run(tmp_path / "short", files, lambda question: "B", limit=5)
    data = json.loads(run("compare", runs[0], tmp_path / "short", "--json", "--measure", "choice").stdout)
    assert 0 < data["comparisons"][0]["n"] < 12


def refused(*arguments: object) -> str:
    result = run("compare", *arguments)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_other_data_is_refused(runs, make_tsv, tmp_path) -> None:
    (tmp_path / "x").mkdir()
    file = make_tsv("x/nano_tr.tsv", [*ROWS[:-1], yes_no("A", image=picture(90))])
    save_run(tmp_path / "other", [file], lambda question: "B")
    assert "their tr files differ: nano_tr.tsv has the SHA-256" in refused(runs[0], tmp_path / "other")


def test_other_prompts_are_refused(files, runs, tmp_path) -> None:
    save_run(tmp_path / "kit", files, lambda question: "B", instruction="kit-group")
    assert "--instruction own, the other with kit-group" in refused(runs[0], tmp_path / "kit")
    # The same by the samples' fingerprints, were the wording of the prompts to change between versions.
    change(runs[1] / "samples.jsonl", 3, sample="0" * 16)
    assert "the prompts or pictures of 1 of 28 rows differ, the first is en row 3" in refused(*runs)


def test_an_older_versions_prompts_are_those_of_the_journal(runs) -> None:
    for folder in runs:
        as_older(folder)
    assert run("compare", *runs).exit_code == 0
    change(runs[1] / "answers.jsonl", 3, sample="0" * 16)
    assert "the prompts or pictures of 1 of 28 rows differ, the first is en row 3" in refused(*runs)


@pytest.mark.parametrize("older", [False, True])
def test_what_the_journal_kept_of_other_questions_refuses_nothing(files, runs, tmp_path, older) -> None:
    """Russian was asked before its file changed, and English rows beyond the report's."""
    for folder in runs:
        with (folder / "answers.jsonl").open("a") as journal:
            for language, index in (("ru", "0"), ("en", "99")):
                line = {"language": language, "index": index, "sample": folder.name * 16, "response": "B"}
                journal.write(json.dumps(line) + "\n")
        if older:
            as_older(folder)
    assert run("compare", *runs).exit_code == 0
    # The rows of a report stay as they were asked, whatever the journal was asked since.
    if not older:
        change(runs[1] / "answers.jsonl", 3, sample="0" * 16)
        assert run("compare", *runs).exit_code == 0


def test_other_benchmarks_and_languages_are_refused(runs, make_tsv, tmp_path) -> None:
    save_run(tmp_path / "m", [make_tsv("mmmb_en.tsv", ROWS)], lambda question: "B", benchmark="MMMB")
    assert "one measured nano, the other MMMB" in refused(runs[0], tmp_path / "m")
    save_run(tmp_path / "ru", [make_tsv("nano_ru.tsv", ROWS)], lambda question: "B")
    assert "one asked in en, tr, the other in ru" in refused(runs[0], tmp_path / "ru")
    assert "no measure 'chioce'" in refused(*runs, "--measure", "chioce")


@pytest.mark.parametrize(
    "command",
    [
        ("tables", "--table", "6", "-o", "{}/t.md"),
        ("report", "--no-plots", "--samples", "0", "-o", "{}/r.html"),
        ("plot", "bars", "-o", "{}/below/b.png"),
    ],
    ids=lambda command: command[0],
)
def test_an_output_that_cannot_be_written_is_told_first(tmp_path, command) -> None:
    """Before the result, which is not there either, is read. Its folder is a file: root may write in any other."""
    if command[0] == "plot":
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    (tmp_path / "file").touch()
    result = run(*(argument.format(tmp_path / "file") for argument in command), tmp_path / "nowhere")
    assert result.exit_code == 2, result.output
    assert f"{tmp_path / 'file'} is a file; give another folder" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_how_runs_are_named(runs, tmp_path) -> None:
    one, other = read_results([str(runs[0]), f"int4={runs[1] / 'report.json'}"])
    assert (one.label, other.label, other.model) == ("tiny fp16", "int4", "tiny int4")
    twice = read_results([str(runs[0]), str(runs[0])])
    assert len({result.label for result in twice}) == 2
    with pytest.raises(InputError, match="labelled 'x'"):
        read_results([f"x={runs[0]}", f"x={runs[1]}"])
    with pytest.raises(InputError, match=r"no report.json in it; it holds .*/a, .*/b; give the folder of one run"):
        read_results([str(tmp_path)])
    (tmp_path / "above").mkdir()
    runs[0].rename(tmp_path / "above" / "a")
    assert read_results([str(tmp_path / "above")])[0].folder == tmp_path / "above" / "a"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report | {"schema_version": 99}, "schema_version 99, expected 1"),
        (lambda report: {k: v for k, v in report.items() if k != "cells"}, "it lacks cells"),
        (lambda report: report | {"data": {"xx": {}}}, "knows a language 'xx'"),
        (lambda report: report | {"cells": [{"value": 1, "interval_95": [1, 2]}]}, "its cells are not those"),
        (lambda report: [], "schema_version None"),
    ],
)
def test_a_broken_report_is_one_line(runs, change, said) -> None:
    file = runs[0] / "report.json"
    file.write_text(json.dumps(change(json.loads(file.read_text("utf-8")))), "utf-8")
    assert said in refused(*runs)


def test_broken_files_beside_it_are_one_line(runs) -> None:
    as_older(runs[0])
    journal = runs[0] / "answers.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"language": "en", "ind')  # cut by a kill: that answer never was
    assert run("compare", *runs).exit_code == 0
    journal.write_bytes(b"{\n" + whole)
    assert "line 1 is broken" in refused(*runs)
    journal.unlink()
    assert "cannot be read" in refused(*runs)


def test_the_default_measure_is_the_first(runs) -> None:
    assert choose_measure(read_results([str(runs[0])]), None) == "choice"
