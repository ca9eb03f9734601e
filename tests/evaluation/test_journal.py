import json
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tsv_files import choice

from parrot_evaluation.journal import Entry, Journal, fingerprint
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import InputError, ParrotError


@pytest.fixture
def rows(make_tsv):
    return read_tsv(make_tsv("nano_tr.tsv", [choice(), choice(), choice()])).rows


def entry(row, response: str, prompt: str = "q") -> Entry:
    return Entry(row.language, row.index, fingerprint(row, prompt), response, "stop", (0.25, 0.75))


def test_answers_come_back(tmp_path: Path, rows) -> None:
    with Journal(tmp_path / "deep" / "answers.jsonl") as journal:
        journal.add(entry(rows[0], "Kırmızı\n\u2028“أحمر” \ud800"))
    with Journal(tmp_path / "deep" / "answers.jsonl") as journal:
        assert journal.find(rows[1], "q") is None
        found = journal.find(rows[0], "q")
    # A lone surrogate has no place in a file: it is written as an escape.
    assert found.response == "Kırmızı\n\u2028“أحمر” \ud800"
    assert (found.finish, found.routing) == ("stop", (0.25, 0.75))


def test_another_prompt_or_picture_is_another_question(tmp_path: Path, rows) -> None:
    with Journal(tmp_path / "answers.jsonl") as journal:
        journal.add(entry(rows[0], "A"))
        assert journal.find(rows[0], "other") is None
        assert journal.find(replace(rows[0], image_id="0" * 16), "q") is None
        assert journal.find(rows[0], "q") is not None


def test_every_cut_of_the_last_line_loses_that_line_only(tmp_path: Path, rows) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path) as journal:
        journal.add(entry(rows[0], "bir"))
        journal.add(entry(rows[1], "şapka"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path) as journal:
            assert journal.find(rows[0], "q").response == "bir"
            assert journal.find(rows[1], "q") is None
            journal.add(entry(rows[2], "son"))
        assert [json.loads(line)["response"] for line in path.read_text("utf-8").splitlines()] == ["bir", "son"]


def test_a_damaged_line_is_named(tmp_path: Path, rows) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"language": "tr"}\n')
    with pytest.raises(InputError, match=r"line 1: not an answer .* --force"), Journal(path):
        pass
    path.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="line 1: not an answer"), Journal(path):
        pass


def test_a_later_answer_replaces_an_earlier_one(tmp_path: Path, rows) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path) as journal:
        journal.add(entry(rows[0], "old"))
        journal.add(entry(rows[0], "new"))
    with Journal(path) as journal:
        assert journal.find(rows[0], "q").response == "new"


def test_asking_anew_costs_no_answer_until_there_is_another(tmp_path: Path, rows) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path) as journal:
        journal.add(entry(rows[0], "first"))
        journal.add(entry(rows[1], "second"))
    with Journal(path, anew=True) as journal:
        assert journal.find(rows[0], "q") is None
        journal.add(entry(rows[0], "third"))
        assert journal.find(rows[0], "q").response == "third"
    with Journal(path) as journal:
        assert [journal.find(row, "q").response for row in rows[:2]] == ["third", "second"]


@pytest.mark.parametrize("line", [b"[1]", b'{"x": 1}', b"\xff", b"null", b'{"language": "tr", "routing": 3}'])
def test_a_damaged_journal_is_mended_by_asking_anew(tmp_path: Path, rows, line: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    with Journal(path) as journal:
        journal.add(entry(rows[0], "kırmızı"))
    good = path.read_bytes()
    path.write_bytes(line + b"\n" + good + b'{"cut')
    with pytest.raises(InputError, match=r"line 1: not an answer .* --force"), Journal(path):
        pass
    assert path.read_bytes() == line + b"\n" + good + b'{"cut'
    with Journal(path, anew=True) as journal:
        journal.add(entry(rows[1], "mavi"))
    assert path.with_name("answers.jsonl.damaged").read_bytes() == line + b"\n" + good + b'{"cut'
    with Journal(path) as journal:
        assert [journal.find(row, "q").response for row in rows[:2]] == ["kırmızı", "mavi"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, rows) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"file/answers\.jsonl: cannot be written"),
        Journal(tmp_path / "file" / "answers.jsonl"),
    ):
        pass


def test_a_full_disk_is_told(tmp_path: Path, rows) -> None:
    with Journal(tmp_path / "answers.jsonl") as journal:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, limits[1]))
        try:
            with pytest.raises(ParrotError, match=r"answers\.jsonl: cannot be written .*run the same command again"):
                journal.add(entry(rows[0], "a" * 100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        journal.add(entry(rows[1], "b"))
    with Journal(tmp_path / "answers.jsonl") as journal:
        assert journal.find(rows[0], "q") is None
        assert journal.find(rows[1], "q").response == "b"


def test_refusals_are_counted_of_the_rows_of_a_run(tmp_path: Path, rows) -> None:
    with Journal(tmp_path / "answers.jsonl") as journal:
        journal.add(replace(entry(rows[0], ""), finish="refused"))
        journal.add(entry(rows[1], "B"))
        assert (journal.refused(rows), journal.refused(rows[1:])) == (1, 0)
        assert journal.find(rows[0], "q") is not None
    with Journal(tmp_path / "answers.jsonl", count_refused=False) as journal:
        assert journal.find(rows[0], "q") is None
        assert journal.find(rows[1], "q") is not None


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "answers.jsonl"),
        pytest.raises(InputError, match="another parrot-eval"),
        Journal(tmp_path / "answers.jsonl"),
    ):
        pass
    with Journal(tmp_path / "answers.jsonl"):  # free again
        pass
