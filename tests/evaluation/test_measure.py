"""``parrot-eval`` from the command line to the files it leaves, over a real (random) bundle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from saved_runs import save_run
from tsv_files import choice, open_row, picture, yes_no

from parrot_evaluation import measure
from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.cli import main
from parrot_evaluation.journal import Journal
from parrot_evaluation.models import Model, open_bundle
from parrot_evaluation.results import read_results
from parrot_evaluation.runner import Question
from parrot_runtime.errors import InputError
from parrot_runtime.languages import parse_languages


@pytest.fixture
def data(make_tsv, tmp_path: Path) -> Path:
    one = picture(1)
    rows = [choice("A"), yes_no("A", image=one), yes_no("B", image=one), open_row("red")]
    for code in ("en", "cn", "pt", "ar", "tr", "ru"):
        make_tsv(f"nano_{code}.tsv", rows)
    return tmp_path


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_bundle_is_measured_and_the_files_are_left(data: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    arguments = ("nano", "--model", bundle, "--data", data, "--languages", "tr,zh", "-o", out)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "| zh Chinese" in result.stdout
    assert "| tr Turkish" in result.stdout
    assert "| en English" not in result.stdout
    (folder,) = (out / "nano").iterdir()
    assert {path.name for path in folder.iterdir()} == {"answers.jsonl", "samples.jsonl", "report.json", "report.md"}
    answers = (folder / "answers.jsonl").read_bytes()
    assert len(answers.splitlines()) == 8
    assert len(json.loads(answers.splitlines()[0])["routing"]) == 6
    again = run(*arguments, "--json")
    assert json.loads(again.stdout) == json.loads((folder / "report.json").read_text("utf-8"))
    assert (folder / "answers.jsonl").read_bytes() == answers  # nothing was asked twice
    forced = run(*arguments, "--force")
    assert forced.exit_code == 0
    assert (folder / "answers.jsonl").read_bytes() == 2 * answers  # greedy: the same answers, asked again


def test_another_choice_of_questions_does_not_replace_a_report(data: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    arguments = ("nano", "--model", bundle, "--data", data, "-o", out)
    assert run(*arguments, "--languages", "tr,zh").exit_code == 0
    (folder,) = (out / "nano").iterdir()
    names = ("report.json", "report.md", "samples.jsonl")
    whole = {name: (folder / name).read_bytes() for name in names}
    part = run(*arguments, "--languages", "tr", "--limit", 1)
    assert part.exit_code == 0, part.output
    (aside,) = (path for path in folder.iterdir() if path.is_dir())
    assert f"is now in {aside}" in part.stderr
    assert {name: (aside / name).read_bytes() for name in names} == whole
    assert "about 1 questions of each language, not all." in (folder / "report.md").read_text("utf-8")
    # It is a result like any other, and the answers are those that both share.
    result = read_results([str(aside)])[0]
    assert (result.languages, len(result.samples), len(result.answers)) == (["zh", "tr"], 8, 8)
    assert "set aside" not in run(*arguments, "--languages", "tr", "--limit", 1).stderr
    assert run(*arguments, "--languages", "tr,zh").exit_code == 0
    assert {name: (folder / name).read_bytes() for name in names} == whole
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2


def test_nobody_else_writes_before_the_report_is_whole(
    data: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process would wait where this one sets a report aside, and where it writes its own."""
    done = []

    def held(name: str):
        whole = getattr(measure, name)

        def function(folder: Path, *more):
            with (
                pytest.raises(InputError, match="another parrot-eval is writing it"),
                Journal(folder / "answers.jsonl"),
            ):
                pass
            done.append(name)
            return whole(folder, *more)

        return function

    for name in ("set_aside", "write_report"):
        monkeypatch.setattr(measure, name, held(name))
    arguments = ("--data", data, "--languages", "tr", "--limit", 1, "-o", tmp_path / "results")
    result = run("nano", "--model", bundle, *arguments)
    assert result.exit_code == 0, result.output
    assert done == ["set_aside", "write_report"]


def test_a_model_whose_name_is_no_utf8_keeps_its_report(make_tsv, tmp_path: Path) -> None:
    save_run(
        tmp_path / "m", [make_tsv("nano_tr.tsv", [choice()])], lambda question: "B", model=os.fsdecode(b"mod\xe8le")
    )
    report = json.loads((tmp_path / "m" / "report.json").read_text("utf-8"))
    assert report["model"] == "mod\ufffdle"
    assert "mod\ufffdle" in (tmp_path / "m" / "report.md").read_text("utf-8")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_for_results_that_is_none_is_told_first(data: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    result = run("nano", "--model", tmp_path / "no-bundle", "--data", data, "-o", tmp_path / place)
    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_an_index_that_tells_no_rotation_is_told_before_the_first_question(make_tsv, tmp_path: Path) -> None:
    make_tsv("mmbench_dev_tr.tsv", [choice(index="1"), choice(index="7.0")])
    result = run("mmbench_dev", "--model", tmp_path / "no-bundle", "--data", tmp_path, "--languages", "tr")
    assert result.exit_code == 2
    assert "line 3 (index 7.0): its index is no whole number" in result.stderr


def test_the_kit_groups_instruction_is_a_run_of_its_own(data: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    for instruction in ("own", "kit-group"):
        arguments = ("--data", data, "--languages", "tr", "--limit", 1, "-o", out, "--instruction", instruction)
        assert run("nano", "--model", bundle, *arguments).exit_code == 0
    assert len(list((out / "nano").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nanno",), "did you mean 'nano'?"),
        (("nano", "--languages", "tr,fr"), "--languages: 'fr' is none of"),
        (("nano", "--languages", ","), "no language given"),
        (("MMMB",), "MMMB is not shipped (CC BY-NC-SA 4.0)"),
        (("MMMB", "--data", "nowhere"), "there is no such folder"),
        (("nano", "--data", "{data}", "--model", "nowhere"), "there is no such bundle folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(data: Path, tmp_path: Path, arguments: tuple, said: str) -> None:
    result = run(*(each.format(data=data) for each in arguments), "-o", tmp_path / "results")
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_nano_without_the_training_extra_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "parrot_train.nano.write", None)  # what an import of it then raises
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"install parrot-edge\[train\], or give a folder .* --data"):
        measure.read_tables(BENCHMARKS["nano"], None, ("tr",))


def test_languages_are_put_in_the_projects_order() -> None:
    assert parse_languages("tr, EN zh", BENCHMARKS["nano"].languages) == ("en", "zh", "tr")
    assert parse_languages(None, BENCHMARKS["nano"].languages) == ("en", "zh", "pt", "ar", "tr", "ru")
    nano, mmmb = BENCHMARKS["nano"], BENCHMARKS["MMMB"]
    assert parse_languages("de,tr", nano.languages, further=nano.further) == ("tr", "de")
    assert parse_languages(None, nano.languages, further=nano.further) == nano.languages
    with pytest.raises(InputError, match="'de' is none of en, zh, pt, ar, tr, ru"):
        parse_languages("de", mmmb.languages, further=mmmb.further)


def test_run_names_change_with_whatever_changes_an_answer() -> None:
    nano, mmmb = BENCHMARKS["nano"], BENCHMARKS["MMMB"]
    one, other = (Model("Görsel model/fp16", digest, lambda questions: []) for digest in "ab")
    names = {
        measure.run_name(one, nano, "own"),
        measure.run_name(other, nano, "own"),
        measure.run_name(one, mmmb, "own"),
        measure.run_name(one, nano, "kit-group"),
    }
    assert len(names) == 4
    assert all(name.startswith("G-rsel-model-fp16-") for name in names)


def test_open_bundle_answers_as_the_runtime_does(bundle: Path, make_tsv) -> None:
    from parrot_evaluation.tsv import read_tsv
    from parrot_runtime.parrot import Parrot

    row = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0]
    model = open_bundle(bundle, max_new_tokens=5)
    questions = [Question(row.image_bytes, text, "tr", "tr row 0") for text in ("Ne var?", "Kaç tane?", "Nerede?")]
    expected = [Parrot.load(bundle).ask(row.image_bytes, each.text, max_new_tokens=5) for each in questions]
    responses = model.ask(questions)
    assert [response.text for response in responses] == [answer.text for answer in expected]
    assert [response.finish for response in responses] == [answer.finish for answer in expected]
    # Rounded to six digits for the journal.
    assert responses[0].routing == pytest.approx(expected[0].routing[0].tolist(), abs=1e-6)
    assert len(model.fingerprint) == 64


def test_a_picture_that_cannot_be_decoded_is_named(bundle: Path, make_tsv, tmp_path: Path) -> None:
    import base64

    cut = base64.b64encode(base64.b64decode(picture())[:-30]).decode()
    make_tsv("nano_tr.tsv", [choice(image=cut)])
    result = run("nano", "--model", bundle, "--data", tmp_path, "--languages", "tr", "-o", tmp_path / "results")
    assert result.exit_code == 2
    assert "tr row 0 (line 2)" in result.stderr


def imported_by(statement: str, names: str) -> str:
    """Which modules starting with one of ``names`` a fresh interpreter has after ``statement``."""
    code = f"import sys; {statement}; print(*(m for m in sys.modules if m.startswith({tuple(names.split())})))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout.strip()


def test_help_is_fast_and_imports_no_engine() -> None:
    assert imported_by("from parrot_evaluation.cli import main", "numpy PIL onnxruntime tokenizers") == ""
    assert "Example: parrot-eval nano" in run("--help").stdout


def test_the_room_imports_training_only_for_nanos_pictures() -> None:
    modules = "benchmarks, cli, measure, models, report, runner, scoring, tables"
    assert imported_by(f"from parrot_evaluation import {modules}", "torch transformers onnx. parrot_train") == ""
