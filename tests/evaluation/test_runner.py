import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tsv_files import choice, open_row, picture, yes_no

from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.journal import Journal
from parrot_evaluation.runner import BATCH, Response, evaluate, select
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import ParrotError, TextError

NANO = BENCHMARKS["nano"]


class Fake:
    """A model that answers B to everything, remembers what it was asked, and may stop after some batches."""

    def __init__(self, batches: int | None = None, error: BaseException | None = None) -> None:
        self.asked: list = []
        self.batches, self.error = batches, error

    def __call__(self, questions):
        if self.batches is not None:
            if self.batches == 0:
                raise self.error
            self.batches -= 1
        self.asked += questions
        return ["B"] * len(questions)


@pytest.fixture
def tables(make_tsv):
    """33 rows in English and 7 in Turkish: no multiple of the batch."""
    english = make_tsv("nano_en.tsv", [choice("B" if number % 3 else "A") for number in range(33)])
    turkish = make_tsv("nano_tr.tsv", [choice("B") for _ in range(7)])
    return [read_tsv(english), read_tsv(turkish)]


def test_a_callable_is_a_model(tables) -> None:
    fake, seen = Fake(), []
    samples = evaluate(NANO, tables, fake, progress=lambda done, total: seen.append((done, total)))
    assert [sample.row for sample in samples] == [row for table in tables for row in table.rows]
    assert sum(sample.right for sample in samples) == 22 + 7
    assert fake.asked[0].image == tables[0].rows[0].image_bytes
    assert fake.asked[0].text.endswith("Answer with the option's letter from the given choices directly.")
    assert fake.asked[-1].text.endswith("ile cevap verin.")
    assert fake.asked[-1].language == "tr"
    assert seen[0] == (0, 40)
    assert seen[-1] == (40, 40)


def test_a_second_run_does_only_the_rest(tmp_path: Path, tables) -> None:
    first = Fake(batches=1, error=KeyboardInterrupt())
    with Journal(tmp_path / "a.jsonl") as journal, pytest.raises(KeyboardInterrupt):
        evaluate(NANO, tables, first, journal=journal)
    second, seen = Fake(), []
    with Journal(tmp_path / "a.jsonl") as journal:
        samples = evaluate(NANO, tables, second, journal=journal, progress=lambda *pair: seen.append(pair))
    assert (len(first.asked), len(second.asked)) == (BATCH, 40 - BATCH)
    assert seen[0] == (BATCH, 40)
    assert [question.name for question in first.asked + second.asked] == [
        question.name for question in _asked_at_once(tables)
    ]
    assert samples == evaluate(NANO, tables, Fake())
    with Journal(tmp_path / "a.jsonl") as journal:
        assert evaluate(NANO, tables, Fake(0, AssertionError("nothing is left to ask")), journal=journal) == samples


def _asked_at_once(tables):
    fake = Fake()
    evaluate(NANO, tables, fake)
    return fake.asked


KILLED = """
import os, signal, sys
from pathlib import Path
from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.journal import Journal
from parrot_evaluation.runner import evaluate
from parrot_evaluation.tsv import read_tsv

asked = 0
def ask(questions):
    global asked
    if asked:
        os.kill(os.getpid(), signal.SIGKILL)
    asked += len(questions)
    return ["B"] * len(questions)

with Journal(Path(sys.argv[1])) as journal:
    evaluate(BENCHMARKS["nano"], [read_tsv(Path(path)) for path in sys.argv[2:]], ask, journal=journal)
"""


def test_sigkill_loses_no_answer_that_was_given(tmp_path: Path, tables) -> None:
    path = tmp_path / "answers.jsonl"
    files = [str(table.path) for table in tables]
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), *files], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert len(path.read_text("utf-8").splitlines()) == BATCH
    rest = Fake()
    with Journal(path) as journal:
        assert evaluate(NANO, tables, rest, journal=journal) == evaluate(NANO, tables, Fake())
    assert len(rest.asked) == 40 - BATCH


def test_a_changed_question_is_asked_again_and_the_others_are_not(tmp_path: Path, make_tsv) -> None:
    rows = [choice("B") for _ in range(3)]
    with Journal(tmp_path / "a.jsonl") as journal:
        evaluate(NANO, [read_tsv(make_tsv("nano_en.tsv", rows))], Fake(), journal=journal)
    rows[1] = choice("B", question="Another question?")
    rows[2] = choice("B", image=picture(77))
    fake = Fake()
    with Journal(tmp_path / "a.jsonl") as journal:
        evaluate(NANO, [read_tsv(make_tsv("nano_en.tsv", rows))], fake, journal=journal)
    assert [question.name.split()[2] for question in fake.asked] == ["1", "2"]


def test_responses_keep_their_routing(tmp_path: Path, tables) -> None:
    def ask(questions):
        return [Response("B", "length", (0.5, 0.5)) for _ in questions]

    with Journal(tmp_path / "a.jsonl") as journal:
        evaluate(NANO, tables, ask, journal=journal)
    line = json.loads((tmp_path / "a.jsonl").read_text("utf-8").splitlines()[0])
    assert (line["response"], line["finish"], line["routing"]) == ("B", "length", [0.5, 0.5])


def test_an_error_of_the_model_names_the_rows_and_keeps_its_kind(tmp_path: Path, tables) -> None:
    with (
        Journal(tmp_path / "a.jsonl") as journal,
        pytest.raises(TextError, match=r"asking en row 16 \(line 18\) to en row 31 .*: too long; .* are kept"),
    ):
        evaluate(NANO, tables, Fake(1, TextError("too long")), journal=journal)


def test_a_model_must_answer_every_question(tables) -> None:
    with pytest.raises(ParrotError, match="15 answers to 16 questions"):
        evaluate(NANO, tables, lambda questions: ["A"] * (len(questions) - 1))


def test_a_limit_is_spread_nested_and_alike_in_every_language(make_tsv) -> None:
    rows = [choice(index=number) for number in range(100)]
    english = read_tsv(make_tsv("nano_en.tsv", rows))
    turkish = read_tsv(make_tsv("nano_tr.tsv", list(reversed(rows))))
    ten = [row.index for row in select(english, NANO, 10)]
    assert ten == [row.index for row in reversed(select(turkish, NANO, 10))]
    assert len(ten) == 10
    assert ten == sorted(ten, key=int)
    assert int(ten[-1]) - int(ten[0]) > 40  # not the first ten
    assert set(ten) < {row.index for row in select(english, NANO, 20)}
    assert len(select(english, NANO, None)) == len(select(english, NANO, 1000)) == 100


def test_a_limit_keeps_pairs_and_circles_whole(make_tsv) -> None:
    rows = [yes_no("AB"[number % 2], image=picture(number // 2)) for number in range(40)] + [open_row("red")]
    chosen = select(read_tsv(make_tsv("nano_en.tsv", rows)), NANO, 7)
    by_picture = [row.image_id for row in chosen if row.kind == "yes_no"]
    assert {by_picture.count(image) for image in by_picture} == {2}
    assert 7 <= len(chosen) <= 8
    rotations = [choice(index=turn * 1_000_000 + number) for number in range(9) for turn in range(4)]
    chosen = select(read_tsv(make_tsv("mmbench_dev_en.tsv", rotations)), BENCHMARKS["MMBench_dev"], 5)
    other = select(read_tsv(make_tsv("mmbench_dev_tr.tsv", list(reversed(rotations)))), BENCHMARKS["MMBench_dev"], 5)
    assert [row.index for row in reversed(other)] == [row.index for row in chosen]
    roots = [int(row.index) % 1_000_000 for row in chosen]
    assert {roots.count(root) for root in roots} == {4}
    assert len(chosen) == 8
