"""What ``--model`` takes, which options fit it, and that how many are asked at once changes nothing that is kept."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from tsv_files import choice, open_row, picture, yes_no

from parrot_evaluation.cli import main
from parrot_evaluation.models import Model, ModelOptions, kind_of, open_bundle, open_model
from parrot_evaluation.runner import Question
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import ImageError, InputError, TextError
from parrot_runtime.image import MAX_PIXELS
from parrot_runtime.manifest import Manifest
from parrot_runtime.parrot import Parrot


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def data(make_tsv, tmp_path: Path) -> Path:
    """23 rows in Turkish and 9 in English, of every kind; two of them share a picture."""
    rows = [choice("A"), yes_no("A", image=picture(1)), yes_no("B", image=picture(1)), open_row("red")]
    make_tsv("nano_tr.tsv", [rows[number % 4] | {"question": "n" * (1 + number)} for number in range(23)])
    make_tsv("nano_en.tsv", [rows[number % 4] for number in range(9)])
    return tmp_path


def arguments(data: Path, bundle: Path, out: Path) -> list[object]:
    return ["nano", "--model", bundle, "--data", data, "--languages", "tr,en", "-o", out]


def kept(out: Path) -> dict[str, bytes]:
    (folder,) = (out / "nano").iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_that_is_kept_depends_on_the_slots(data: Path, bundle: Path, tmp_path: Path) -> None:
    found = []
    for slots in (1, 3, 4, 32):
        result = run(*arguments(data, bundle, tmp_path / f"{slots}"), "--slots", slots)
        assert result.exit_code == 0, result.output
        found.append(kept(tmp_path / f"{slots}"))
    assert len(found[0]["answers.jsonl"].splitlines()) == 32
    assert all(each == found[0] for each in found[1:])


def test_where_answers_depend_on_those_beside_them_one_is_asked_at_a_time(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = open_bundle(bundle, max_new_tokens=3)
    assert open_bundle(bundle, max_new_tokens=3, slots=9).fingerprint == exact.fingerprint
    monkeypatch.setattr(Manifest, "rounds_rows_together", True)
    asked = []
    monkeypatch.setattr(
        Parrot, "answers", lambda self, pairs, *, slots, max_new_tokens: iter([asked.append(slots)][1:])
    )
    alone, together = open_bundle(bundle, max_new_tokens=3), open_bundle(bundle, max_new_tokens=3, slots=9)
    assert alone.ask([]) == together.ask([]) == []
    assert asked == [1, 9]
    assert alone.fingerprint == exact.fingerprint != together.fingerprint
    assert together.name == f"{alone.name}, 9 slots"


def test_kill_9_in_the_middle_and_each_question_is_answered_once(data: Path, bundle: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    assert run(*arguments(data, bundle, whole), "--slots", 4).exit_code == 0
    out, kills = tmp_path / "killed", 0
    program = "from parrot_evaluation.cli import main; main()"
    given = [str(each) for each in (*arguments(data, bundle, out), "--slots", 4)]
    for lines in (3, 17):
        journal = None
        running = subprocess.Popen([sys.executable, "-c", program, *given], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while running.poll() is None and time.monotonic() < deadline:
            journal = journal or next(out.glob("nano/*/answers.jsonl"), None)
            if journal is not None and journal.read_bytes().count(b"\n") >= lines:
                os.kill(running.pid, signal.SIGKILL)
                break
        running.communicate(timeout=60)
        kills += running.returncode == -signal.SIGKILL
    assert kills
    result = run(*given)
    assert result.exit_code == 0, result.output
    assert kept(out) == kept(whole)
    answers = [json.loads(line) for line in kept(out)["answers.jsonl"].splitlines()]
    assert len({(each["language"], each["index"]) for each in answers}) == len(answers) == 32


def test_each_answer_is_given_as_soon_as_those_before_it_are(bundle: Path, make_tsv) -> None:
    row = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0]
    read = []

    def questions():
        for number in range(30):
            read.append(number)
            yield Question(row.image_bytes, "x" * (1 + number), "tr", f"row {number}")

    stream = open_bundle(bundle, max_new_tokens=5, slots=2).stream(questions())
    expected = Parrot.load(bundle).ask(row.image_bytes, "x", max_new_tokens=5).text
    assert next(stream).text == expected
    assert len(read) <= 4  # and the rest has not even been read


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        (Question(b"no picture", "Ne var?", "tr", "tr row 3"), ImageError, "tr row 3"),
        (Question(b"", " ", "tr", "tr row 3"), TextError, "asking tr row 3: the question is empty"),
        (Question(b"", "ne " * 300, "tr", "tr row 3"), TextError, "asking tr row 3: the question is too long"),
    ],
)
def test_a_question_that_cannot_be_asked_is_named_after_the_answers_before_it(
    bundle: Path, make_tsv, bad: Question, error: type, said: str
) -> None:
    image = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0].image_bytes
    bad = bad if bad.image else Question(image, bad.text, bad.language, bad.name)
    good = [Question(image, "x" * number, "tr", f"tr row {number}") for number in (1, 2)]
    answers = []
    with pytest.raises(error, match=f"{said}.*; the answers before it are kept"):
        answers += open_bundle(bundle, max_new_tokens=3, slots=8).stream([*good, bad, *good])
    stream = open_bundle(bundle, max_new_tokens=3, slots=8).stream([*good, bad])
    assert [next(stream).finish, next(stream).finish] == ["length", "length"]


@pytest.mark.parametrize("slots", [1, 8])
def test_what_cannot_be_asked_can_be_counted(bundle: Path, make_tsv, slots: int) -> None:
    image = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0].image_bytes
    good = [Question(image, "x" * number, "tr", f"tr row {number}") for number in (1, 2, 3)]
    damaged = Question(b"no picture", "Ne var?", "tr", "tr row 4")
    long = Question(image, "ne " * 300, "tr", "tr row 5")
    options = ModelOptions(slots=slots, count_refused=True)
    opened = open_model(str(bundle), options, max_new_tokens=3)
    found = opened.ask([damaged, good[0], long, damaged, *good[1:], long])
    assert [each.finish for each in found] == [
        *("refused", "length", "refused", "refused", "length", "length", "refused")
    ]
    plain = open_bundle(bundle, max_new_tokens=3, slots=slots).ask(good)
    assert [each.text for each in found if each.finish != "refused"] == [each.text for each in plain]


def test_another_limit_of_pixels_is_a_run_of_its_own(data: Path, bundle: Path, tmp_path: Path) -> None:
    given = (*arguments(data, bundle, tmp_path / "out"), "--limit", 2)
    refused = run(*given, "--max-pixels", 14)
    assert refused.exit_code == 2
    assert "3 x 5 is 15 pixels, the limit is 14" in refused.stderr
    for more in ((), ("--max-pixels", MAX_PIXELS)):
        assert run(*given, *more).exit_code == 0
    assert run(*given, "--max-pixels", 15).exit_code == 0
    usual, low, exact = sorted((tmp_path / "out" / "nano").iterdir(), key=lambda each: "pixels" in each.name)
    assert not (usual / "report.json").read_bytes().count(b"pixels")
    assert {"up-to-14-pixels", "up-to-15-pixels"} == {each.name.rpartition("-")[0][-15:] for each in (low, exact)}
    counted = run(*given, "--max-pixels", 14, "--count-refused")
    assert counted.exit_code == 0, counted.output
    assert "of the questions were refused or could not be asked" in counted.stderr
    assert f"[{MAX_PIXELS}]" in run("run", "--help").stdout


def test_the_usual_limit_of_pixels_leaves_name_and_fingerprint_as_they_were(bundle: Path) -> None:
    def opened(limit: int | None) -> Model:
        return open_model(str(bundle), ModelOptions(max_pixels=limit), max_new_tokens=3)

    usual = open_bundle(bundle, max_new_tokens=3)
    for limit in (None, MAX_PIXELS):
        assert (opened(limit).name, opened(limit).fingerprint) == (usual.name, usual.fingerprint)
    assert opened(99).name == f"{usual.name}, up to 99 pixels"
    assert len({each.fingerprint for each in (usual, opened(98), opened(99))}) == 3


def test_kinds_of_models(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert kind_of("http://localhost:1/v1") == kind_of("https://example.org/v1") == "server"
    assert kind_of(str(bundle)) == "bundle"
    assert kind_of(str(tmp_path)) == "checkpoint"
    with pytest.raises(InputError, match=r"there is no such bundle folder, nor a checkpoint's"):
        kind_of(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither a bundle \(parrot.json\) nor a checkpoint \(config.json\)"):
        kind_of(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("options", "model", "said"),
    [
        ({"dtype": "bf16"}, "{bundle}", "--dtype is for a checkpoint, and .* is a bundle; leave it out"),
        ({"retries": 0}, "{bundle}", "--retries is for a server's model"),
        ({"device": "cpu", "model_name": "m"}, "http://localhost/v1", "--device is for a checkpoint"),
        ({"max_pixels": 9}, "http://localhost/v1", "--max-pixels is for a bundle and a checkpoint, and .* is a server"),
    ],
)
def test_an_option_that_says_nothing_of_the_model_is_refused(
    bundle: Path, options: dict, model: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        open_model(model.format(bundle=bundle), ModelOptions(**options), max_new_tokens=3)
