"""What the gate asks: questions of a person's own files, apart from what was calibrated on, or nano's held-out ones."""

import base64
import csv
import io
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from PIL import Image

from parrot_export.checkpoint import open_checkpoint
from parrot_export.cli import main
from parrot_export.conversations import draw_samples
from parrot_export.gate import Budget, too_few
from parrot_export.samples import Asking, gate_questions, graded_samples, search_questions
from parrot_runtime.choices import multiple_choice
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import load_manifest


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (33, 21), (30, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def record(language: str, question: str, answer: str, system: str | None = None) -> dict:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    turns += [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "Nothing more."}]
    return {
        "language": language,
        "image": "a.png",
        "conversations": [{"from": "system", "value": system}] * bool(system) + turns,
    }


@pytest.fixture
def llava(tmp_path):
    """Eight records in each language: two open ones, lettered ones, and one whose answer is not a letter."""
    (tmp_path / "a.png").write_bytes(picture())
    records = []
    for code in CODES:
        records += [record(code, "What is there?", "A green field.", "Be brief."), record(code, "Where?", "Here.")]
        records += [record(code, multiple_choice(f"{n}?", ("Red", "Green", "Blue"), code), "B") for n in range(5)]
        records.append(record(code, multiple_choice("Which?", ("Red", "Green"), code), "It is B, green"))
    path = tmp_path / "own.json"
    path.write_text(json.dumps(records), "utf-8")
    return path


@pytest.fixture
def tables(tmp_path):
    """A table per language, as VLMEvalKit has them: four options, yes or no, and an open question."""
    code, paths = base64.b64encode(picture()).decode(), []
    for language in ("ar", "cn", "en", "pt", "ru", "tr"):
        path = tmp_path / f"mmmb_{language}.tsv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["index", "image", "question", "A", "B", "C", "D", "answer", "category"])
            writer.writerow([1, code, "Which?", "Red", "Green", "Blue", "Black", "B", "colour"])
            writer.writerow([2, code, "Green?", "Yes", "No", "", "", "A", "colour"])
            writer.writerow([3, code, "What?", "", "", "", "", "A field", "thing"])
        paths.append(path)
    return tuple(paths)


@pytest.fixture
def plain(checkpoint):
    return Asking(open_checkpoint(checkpoint), (), 1024, print)


def asked(asking, data, count=480, longest=1024):
    notes = []
    return gate_questions(replace(asking, data=tuple(data), longest=longest, note=notes.append), count), notes


def test_own_conversations_become_questions_with_letters_and_open_ones(plain, llava):
    found, notes = asked(plain, [llava])
    assert notes == [f"--gate-data: {code} has 8 of 480 samples" for code in CODES]
    own = [one for one in found if one.language == "tr"]
    assert sorted((one.answer, one.options) for one in own) == sorted(
        [("A green field.", 0), ("Here.", 0), ("It is B, green", 0)] + [("B", 3)] * 5
    )
    assert {one.system for one in own} == {None, "Be brief."}
    assert {len(one.turns) for one in found} == {2}  # what comes later was asked in the light of the right answer
    assert own[0].image().size == (33, 21)


def test_tables_become_questions_with_as_many_letters_as_they_have_options(plain, tables):
    found, _ = asked(plain, tables)
    for code in CODES:
        own = {one.row: one for one in found if one.language == code}
        assert {row: (one.options, one.answer) for row, one in own.items()} == {
            "1": (4, "B"),
            "2": (2, "A"),
            "3": (0, "A field"),
        }
        assert own["1"].question == multiple_choice("Which?", ("Red", "Green", "Blue", "Black"), code)


def test_a_draw_is_seeded_and_balanced(plain, llava):
    first, again = (asked(plain, [llava], 3)[0] for _ in range(2))
    assert [one.place for one in first] == [one.place for one in again]
    for code in CODES:
        kinds = [one.kind for one in first if one.language == code]
        assert sorted(set(kinds)) == ["choice", "short"]


def test_what_was_calibrated_on_is_not_asked_wherever_the_file_lies_now(plain, llava, tmp_path):
    entries = [one.entry for one in draw_samples([llava], 2, 0).samples]
    seen = frozenset((entry["source"].rsplit("/")[-1], entry["row"]) for entry in entries)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "a.png").write_bytes(picture())
    copy = moved / llava.name
    copy.write_bytes(llava.read_bytes())
    found, notes = asked(replace(plain, seen=seen), [copy])
    assert len(found) == 6 * 8 - 12
    assert not {one.place for one in found} & seen
    assert f"--gate-data: 12 records of {copy} were calibrated on, and are left out" in notes


def test_languages_without_a_question_are_refused(plain, llava, tables):
    with pytest.raises(InputError, match=r"no sample in zh, pt, ar, tr, ru") as caught:
        asked(plain, tables[2:3])
    assert "\n" not in str(caught.value)
    found, _ = asked(replace(plain, languages=("en",)), tables[2:3])  # calibrated in English alone
    assert {one.language for one in found} == {"en"}
    with pytest.raises(InputError, match="40 positions or fewer is left in en"):
        asked(plain, [llava], longest=40)
    every = frozenset((llava.name, str(row)) for row in range(48))
    with pytest.raises(InputError, match=r"no sample in .*\(48 records of .* were calibrated on"):
        asked(replace(plain, seen=every), [llava])


def test_a_model_that_never_saw_nano_is_told_what_the_gate_asks(plain):
    found, notes = asked(plain, (), 2)
    assert len(notes) == 1
    assert "the gate asks about nano's pictures" in notes[0]
    assert [one.place for one in found] == [one.place for one in graded_samples(2)]
    recipe = replace(plain.checkpoint.recipe, training={"settings": {"data": {"stage1": ["nano"]}}})
    trained = replace(plain, checkpoint=replace(plain.checkpoint, recipe=recipe))
    assert asked(trained, (), 2)[1] == []


def test_a_search_asks_what_the_gate_does_not(plain, llava):
    own = replace(plain, data=(llava,))
    searched = search_questions(own, 3)
    assert [one.language for one in searched] == [code for code in CODES for _ in range(3)]
    gate, _ = asked(replace(own, seen=frozenset(one.place for one in searched)), [llava])
    assert len(gate) == 6 * (8 - 3)
    assert not {one.place for one in gate} & {one.place for one in searched}
    pictures = [{one.image().tobytes() for one in draw} for draw in (search_questions(plain, 4), graded_samples(4))]
    assert not pictures[0] & pictures[1]


def test_it_is_said_where_one_answer_is_more_than_the_budget():
    samples = list(graded_samples(60))
    assert list(too_few(samples, Budget(5.0))) == []
    (line,) = too_few(samples, Budget(3.0))
    assert line.startswith("the gate asks 20 open in ")
    assert "one answer is 5.0 points, and 3 may be lost" in line
    assert len(list(too_few(samples, Budget(1.0)))) == 2
    assert list(too_few(samples, Budget(0.0))) == []  # nothing may be lost: one is what is looked for
    assert list(too_few(list(graded_samples(480)), Budget())) == []


def run(*arguments, code: int):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="parrot-export")
    assert result.exit_code == code, result.output
    return result


def test_an_export_asks_own_questions(checkpoint, llava, tables, tmp_path, monkeypatch):
    from parrot_export import verify

    wide = verify.Tolerance(9.0, 9.0, "random weights")
    monkeypatch.setattr(verify, "TOLERANCES", dict.fromkeys(verify.TOLERANCES, wide))
    end = ["--target", "cpu", "--max-kl", "50", "--max-drop", "100", "-o", tmp_path / "b"]
    run(
        checkpoint,
        "--int8",
        "--gate-data",
        llava,
        *(f"--gate-data={path}" for path in tables),
        "--gate-samples",
        4,
        *end,
        code=0,
    )
    gate = load_manifest(tmp_path / "b").verification["gate"]
    assert gate["samples"] == 24
    assert set(gate["sources"]) == {"own.json", *(path.name for path in tables)}
    # One of a table's; of the file's, the one whose answer is no letter counts among the open ones.
    assert {cost["choices"] for cost in gate["cpu"]["languages"].values()} <= {1, 2}


def test_bad_questions_end_before_anything_is_written(checkpoint, llava, tables, tmp_path):
    before = sorted(tmp_path.iterdir())
    end = ["--int8", "--target", "cpu", "-o", tmp_path / "b"]
    for words, told in [
        (["--max-kl", "1", "--gate-data", tmp_path / "none.json"], "there is no such file"),
        (["--max-kl", "1", "--gate-data", tables[0]], "no sample in en, zh, pt, tr, ru"),
        (["--gate-data", llava], "--gate-data is for --auto, --calibration"),
        (["--max-kl", "1", "--no-verify", "--gate-data", llava], "--no-verify leaves out"),
    ]:
        stderr = run(checkpoint, *words, *end, code=2).stderr
        assert told in stderr
        assert len(stderr.strip().splitlines()) == 1
        assert sorted(tmp_path.iterdir()) == before
