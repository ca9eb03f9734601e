"""A judge behind a real local server that fails in every way it can: scores, journal, refusals, orders, prompt."""

import dataclasses
import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import chat_server
import pytest

from parrot_evaluation import judge as judging
from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.judge import PROMPT, Judge, JudgementJournal, judge_answers, read_prompt, read_scores
from parrot_evaluation.scoring import judge as judge_row
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.endpoint import Endpoint
from parrot_runtime.errors import InputError, ParrotError

pytest.importorskip("httpx2")
LLAVA = BENCHMARKS["LLaVA-Bench"]
COLUMNS = ["index", "image", "question", "caption", "gpt4_ans", "category"]


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("8 7\nBoth are fine.", (8, 7)),
        ("8.5 7", (8.5, 7)),
        ("  8 7 \nreasons", (8, 7)),
        ("\n8 7", (8, 7)),
        ("8,7", (8, 7)),
        ("8, 7", (8, 7)),  # VLMEvalKit reads no score here
        ("8\t7", (8, 7)),
        ("10 0", (10, 0)),
        ("8 7 6", None),
        ("8", None),
        ("", None),
        ("\n\n", None),
        ("Assistant 1: 8, Assistant 2: 7", None),
        ("8/10 7/10", None),
        ("eight seven", None),
        ("nan nan", None),
        ("inf 1", None),
        ("1e1 2", None),
        ("-1 5", None),
        ("11 5", None),
        ("**8 7**", None),
        ("٨ ٧", None),
        ("The scores are:\n8 7", None),
    ],
)
def test_the_first_line_holds_two_scores_or_none(reply: str, scores: tuple | None) -> None:
    assert read_scores(reply) == scores


@pytest.fixture
def samples(make_tsv):
    """Seven judged rows in English; the model's answers are ``model 0`` and on."""
    rows = [
        {"question": f"What is {number}?", "caption": f"caption {number}", "gpt4_ans": f"reference {number}"}
        | {"category": ("conv", "detail", "complex")[number % 3]}
        for number in range(7)
    ]
    read = read_tsv(make_tsv("LLaVABench.tsv", rows, COLUMNS), language="en", form=LLAVA.form).rows
    return [judge_row(row, f"model {number}", LLAVA) for number, row in enumerate(read)]


@pytest.fixture
def server():
    """Scores the reference 8 and the model 6, wherever they stand."""
    with chat_server.serving({}) as running:
        running.answer = scored
        yield running


def scored(body: dict) -> str:
    content = body["messages"][-1]["content"]
    return "8 6\nbecause" if content.index("reference") < content.index("model") else "6 8\nbecause"


def judge_all(samples, judge: Judge, path: Path, **more):
    with JudgementJournal(path) as journal:
        return judge_answers(samples, judge, journal, **more)


def test_the_judge_sees_context_question_and_both_answers(server, samples, tmp_path: Path) -> None:
    seen = []
    judged = judge_all(
        samples, Judge(server.url, "gpt"), tmp_path / "j.jsonl", progress=lambda *pair: seen.append(pair)
    )
    assert [each.judgements[0].scores for each in judged] == [(8, 6)] * 7
    assert [each.sample for each in judged] == samples
    bodies = sorted(server.bodies, key=lambda body: body["messages"][1]["content"])
    content = bodies[0]["messages"][1]["content"]
    places = [content.index(text) for text in ("caption 0", "What is 0?", "reference 0", "model 0", "two numbers")]
    assert places == sorted(places)
    assert (bodies[0]["model"], bodies[0]["temperature"]) == ("gpt", 0)
    assert (seen[0], seen[-1]) == ((0, 7), (7, 7))


def test_a_second_run_asks_nothing(server, samples, tmp_path: Path) -> None:
    first = judge_all(samples, Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    asked = len(server.bodies)
    assert judge_all(samples, Judge(server.url, "gpt"), tmp_path / "j.jsonl") == first
    assert len(server.bodies) == asked == 7


def test_only_what_changed_is_judged_again(server, samples, tmp_path: Path) -> None:
    judge_all(samples, Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    changed = [*samples[:-1], dataclasses.replace(samples[-1], response="model, other")]
    judge_all(changed, Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert len(server.bodies) == 8
    for other in (Judge(server.url, "gpt-2"), Judge(server.url, "gpt", fields={"top_p": 0.5})):
        before = len(server.bodies)
        judge_all(samples, other, tmp_path / "j.jsonl")
        assert len(server.bodies) == before + 7


def test_another_servers_judgements_are_not_taken(server, samples, tmp_path: Path) -> None:
    judge_all(samples, Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    with chat_server.serving({}) as other:
        other.answer = lambda body: "3 4"
        judged = judge_all(samples, Judge(other.url, "gpt"), tmp_path / "j.jsonl")
        assert len(other.bodies) == 7
        assert Judge(other.url, "gpt").settings() != Judge(server.url, "gpt").settings()
    assert [each.judgements[0].scores for each in judged] == [(3, 4)] * 7
    # The same address, spelt in another way.
    judge = Judge(f"{server.url}/chat/completions", "gpt")
    assert judge.settings() == Judge(server.url, "gpt").settings()
    judge_all(samples, judge, tmp_path / "j.jsonl")
    assert len(server.bodies) == 7


def test_half_a_surrogate_pair_is_judged_as_its_number(server, samples, tmp_path: Path) -> None:
    odd = dataclasses.replace(samples[0], response="model \ud83d")
    judged = judge_all([odd], Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert judged[0].judgements[0].scores == (8, 6)
    assert "model \\ud83d\n" in server.bodies[0]["messages"][1]["content"]


def test_equal_rows_are_judged_once(server, samples, tmp_path: Path) -> None:
    same = dataclasses.replace(samples[0], row=dataclasses.replace(samples[0].row, index="another"))
    judged = judge_all([samples[0], same], Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert [each.judgements[0].scores for each in judged] == [(8, 6)] * 2
    assert len(server.bodies) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.judge import Judge, JudgementJournal, judge_answers
from parrot_evaluation.scoring import judge
from parrot_evaluation.tsv import read_tsv

benchmark = BENCHMARKS["LLaVA-Bench"]
rows = read_tsv(Path(sys.argv[1]), language="en", form=benchmark.form).rows
samples = [judge(row, f"model {number}", benchmark) for number, row in enumerate(rows)]

def progress(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

with JudgementJournal(Path(sys.argv[2])) as journal:
    judge_answers(samples, Judge(sys.argv[3], "gpt"), journal, progress=progress)
"""


def test_sigkill_loses_no_judgement_that_was_kept(server, samples, tmp_path: Path) -> None:
    file, path = tmp_path / "LLaVABench.tsv", tmp_path / "j.jsonl"
    command = [sys.executable, "-c", KILLED, str(file), str(path), server.url]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert len(path.read_text("utf-8").splitlines()) == 3
    assert [each.judgements[0].scores for each in judge_all(samples, Judge(server.url, "gpt"), path)] == [(8, 6)] * 7
    asked = Counter(str(body["messages"]) for body in server.bodies)
    # What was kept is not asked again; of the rest, those that were under way.
    assert len(asked) == 7
    assert max(asked.values()) <= 2
    assert sum(count == 1 for count in asked.values()) >= 3


def test_both_orders_are_two_requests_and_scores_stay_with_their_answers(server, samples, tmp_path: Path) -> None:
    judged = judge_all(samples, Judge(server.url, "gpt", both_orders=True), tmp_path / "j.jsonl")
    assert len(server.bodies) == 14
    for each in judged:
        assert [judgement.reference_first for judgement in each.judgements] == [True, False]
        assert [judgement.scores for judgement in each.judgements] == [(8, 6), (8, 6)]


def test_an_answer_that_looks_like_the_prompt_changes_nothing(server, samples, tmp_path: Path) -> None:
    odd = dataclasses.replace(samples[0], response="{first} {caption} model {0} \\1")
    judge_all([odd], Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert "{first} {caption} model {0} \\1" in server.bodies[0]["messages"][1]["content"]


def test_unreadable_and_refused_judgements_are_told_apart(server, samples, tmp_path: Path) -> None:
    server.answer = lambda body: "Assistant 1 is better." if "What is 0?" in str(body) else scored(body)
    judged = judge_all(samples[:1], Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert judged[0].judgements[0] == judging.Judgement(True, "Assistant 1 is better.", None)
    server.faults = [chat_server.status(400, "content filter")]
    judged = judge_all(samples[1:2], Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert judged[0].judgements[0] == judging.Judgement(True, None, None)
    # What was read, even if of no use, is not asked again; what was refused is.
    before = len(server.bodies)
    judged = judge_all(samples[:2], Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert [each.judgements[0].scores for each in judged] == [None, (8, 6)]
    assert len(server.bodies) == before + 1


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    server, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "s3cret-key")
    judge = Judge(server.url, "gpt", key_env="MY_JUDGE_KEY")
    judge_all(samples[:2], judge, tmp_path / "j.jsonl")
    assert server.keys == {"Bearer s3cret-key"}
    assert "s3cret-key" not in (tmp_path / "j.jsonl").read_text("utf-8") + json.dumps(judge.settings())
    assert server.url not in json.dumps(judge.settings())


def test_a_server_that_refuses_all_is_one_line_and_keeps_what_was_judged(server, samples, tmp_path: Path) -> None:
    judge_all(samples[:2], Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    server.faults = [chat_server.status(401, "bad key")] * 9
    with pytest.raises(InputError, match="check --judge, --judge-model and the key of --judge-key-env"):
        judge_all(samples, Judge(server.url, "gpt"), tmp_path / "j.jsonl")
    assert len((tmp_path / "j.jsonl").read_text("utf-8").splitlines()) == 2


def test_one_process_writes_a_journal(tmp_path: Path) -> None:
    with (
        JudgementJournal(tmp_path / "j.jsonl"),
        pytest.raises(InputError, match="another parrot-eval"),
        JudgementJournal(tmp_path / "j.jsonl"),
    ):
        pass


def test_a_line_that_is_no_judgement(tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_text('{"key": 1}\n', "utf-8")
    with pytest.raises(InputError, match="line 1: not a judgement"), JudgementJournal(tmp_path / "j.jsonl"):
        pass


def test_the_prompt_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("{caption}|{question}|{first}|{second}", "utf-8")
    assert read_prompt(path) == "{caption}|{question}|{first}|{second}"
    path.write_text("{caption} {first}", "utf-8")
    with pytest.raises(InputError, match=r"lacks \{question\}, \{second\}"):
        read_prompt(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="cannot be read"):
        read_prompt(path)
    assert all(f"{{{place}}}" in PROMPT for place in ("caption", "question", "first", "second"))


def test_judged_files_are_checked(make_tsv) -> None:
    good = {"caption": "c", "gpt4_ans": "a", "category": "conv"}
    for change, said in (
        ({"caption": ""}, "it has no caption"),
        ({"gpt4_ans": "nan"}, "it has no gpt4_ans"),
        ({"category": "chat"}, "its category 'chat' is none of conv, detail, complex"),
        ({"image": ""}, "it has no picture"),
    ):
        with pytest.raises(InputError, match=said):
            read_tsv(make_tsv("LLaVABench.tsv", [good | change], COLUMNS), language="en", form="judged")
    with pytest.raises(InputError, match="the header lacks caption, gpt4_ans;"):
        read_tsv(make_tsv("LLaVABench.tsv", [{}], COLUMNS[:3] + COLUMNS[5:]), language="en", form="judged")
    row = read_tsv(make_tsv("LLaVABench.tsv", [good], COLUMNS), language="en", form="judged").rows[0]
    assert (row.answer, row.caption, row.category, row.kind) == ("a", "c", "conv", "open")


def test_giving_up_is_a_clear_line(samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where nobody listens; the waits between tries are cut short."""
    monkeypatch.setattr(Endpoint, "_rest", lambda self, error, wait: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ParrotError, match="no answer after 9 tries"):
            judge_all(samples[:1], Judge(address, "gpt"), tmp_path / "j.jsonl")
    assert (tmp_path / "j.jsonl").stat().st_size == 0
