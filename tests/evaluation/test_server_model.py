"""``parrot-eval --model URL``: against a real server that fails in every way it can."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import chat_server
import pytest
from click.testing import CliRunner
from tsv_files import choice, picture

from parrot_evaluation.cli import main

pytest.importorskip("httpx2")


@pytest.fixture
def server():
    """Answers B."""
    with chat_server.serving({}) as running:
        running.answer = lambda body: "B"
        yield running


@pytest.fixture
def data(make_tsv, tmp_path: Path) -> Path:
    make_tsv("nano_tr.tsv", [choice("B" if number % 3 else "A", question=f"soru {number}?") for number in range(24)])
    return tmp_path


def given(server, data: Path, *more: object) -> list[str]:
    base = ("nano", "--model", server.url, "--model-name", "m", "--data", data, "--languages", "tr")
    return [str(each) for each in (*base, "-o", data / "results", *more)]


def run(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def test_a_servers_model_is_measured(server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.faults = [chat_server.status(429, Retry_After="0"), chat_server.status(503), chat_server.close]
    server.delay = 0.02
    result = run(*given(server, data, "--api-key-env", "MY_KEY", "--concurrency", 3, "--json"))
    assert result.exit_code == 0, result.output
    cells = {cell["measure"]: cell for cell in json.loads(result.stdout)["cells"]}
    assert (cells["choice"]["right"], cells["choice"]["total"]) == (16, 24)
    assert json.loads(result.stdout)["model"] == "m"
    assert "a server's model can change unseen" in result.stderr
    assert server.keys == {"Bearer sk-secret"}
    assert 1 < server.most <= 3
    assert len(server.answered) == 24
    body = next(body for body in server.bodies if "soru 7?" in body["messages"][0]["content"][1]["text"])
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 160)
    (message,) = body["messages"]
    uri = message["content"][0]["image_url"]["url"]
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == base64.b64decode(picture(7))
    assert not [path for path in data.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]


def test_journal_and_results_do_not_depend_on_the_concurrency(server, data: Path) -> None:
    server.answer = lambda body: (
        time.sleep(0.02 * (len(server.bodies) % 4)) or body["messages"][0]["content"][1]["text"]
    )
    found = []
    for count in (1, 5):
        out = data / f"results-{count}"
        assert run(*given(server, data, "-o", out, "--concurrency", count)).exit_code == 0
        (folder,) = (out / "nano").iterdir()
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]


def test_another_model_another_address_and_other_fields_are_runs_of_their_own(server, data: Path) -> None:
    for more in ((), ("--model-name", "other"), ("--body", '{"top_k": 1}')):
        assert run(*given(server, data, "--limit", 2), *more).exit_code == 0
    assert len(list((data / "results" / "nano").iterdir())) == 3


def test_kill_9_and_each_question_is_answered_once(server, data: Path) -> None:
    server.delay = 0.05
    arguments = given(server, data, "--concurrency", 2)
    program = "from parrot_evaluation.cli import main; main()"
    running = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.poll() is None:
        journal = next((data / "results").glob("nano/*/answers.jsonl"), None)
        if journal is not None and journal.read_bytes().count(b"\n") >= 5:
            os.kill(running.pid, signal.SIGKILL)
            break
    running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL
    there = journal.read_bytes().count(b"\n")
    assert run(*arguments).exit_code == 0
    asked = Counter(body["messages"][0]["content"][1]["text"] for body in server.bodies)
    times = [sum(count for text, count in asked.items() if f"soru {number}?" in text) for number in range(24)]
    # What was kept is not asked again; of the rest, those whose turn had not come when it was killed.
    assert times[:there] == [1] * there
    assert set(times) <= {1, 2}
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    assert [line["index"] for line in lines] == [str(number) for number in range(24)]


def test_a_refused_question_is_named_or_counted_as_wrong(server, data: Path) -> None:
    server.faults = [chat_server.about("soru 0?", chat_server.status(400, "no such picture"))]
    arguments = given(server, data, "--concurrency", 1)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "asking tr row 0 (line 2): the server refuses it (status 400: no such picture)" in result.stderr
    assert "--count-refused" in result.stderr
    server.faults = [chat_server.about("soru 0?", chat_server.status(413, "too large"))]
    result = run(*arguments, "--count-refused", "--json")
    assert result.exit_code == 0, result.output
    assert "1 of the questions were refused or could not be asked; they count as wrong" in result.stderr
    assert json.loads(result.stdout)["settings"]["refused"] == 1
    assert run(*arguments, "--count-refused", "--json").stdout == result.stdout  # and a later run says it too
    cells = {cell["measure"]: cell for cell in json.loads(result.stdout)["cells"]}
    assert (cells["choice"]["right"], cells["choice"]["total"]) == (16, 24)
    lines = next((data / "results").glob("nano/*/answers.jsonl")).read_text("utf-8").splitlines()
    assert [json.loads(line)["finish"] for line in lines] == ["refused"] + ["stop"] * 23
    asked = len(server.bodies)
    again = run(*arguments, "--json")
    assert again.exit_code == 0, again.output
    assert len(server.bodies) == asked + 1  # without the option a refusal is no answer
    assert "refused" not in json.loads(again.stdout)["settings"]


def test_a_question_that_the_server_stumbles_over_each_time_is_named(server, data: Path) -> None:
    def answer(body: dict) -> str:
        if "soru 7?" in body["messages"][0]["content"][1]["text"]:
            raise RuntimeError("this one is too much for me")
        return "B"

    server.answer = answer
    result = run(*given(server, data, "--concurrency", 2, "--retries", 1))
    assert result.exit_code == 1
    assert "asking tr row 7 (line 9): " in result.stderr
    assert "no answer after 2 tries" in result.stderr
    lines = next((data / "results").glob("nano/*/answers.jsonl")).read_text("utf-8").splitlines()
    assert [json.loads(line)["index"] for line in lines] == [str(number) for number in range(7)]


def test_a_server_that_is_gone_costs_no_answer_when_all_are_asked_again(server, data: Path) -> None:
    arguments = given(server, data, "--concurrency", 1)
    assert run(*arguments).exit_code == 0
    journal = next((data / "results").glob("nano/*/answers.jsonl"))
    before = journal.read_bytes()
    server.faults = [chat_server.status(401, "who are you?")]
    result = run(*arguments, "--force")
    assert result.exit_code != 0
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--model-name", ""), "name the one to measure with --model-name"),
        (("--api-key-env", "NO_SUCH_KEY"), "--api-key-env NO_SUCH_KEY: there is no such variable"),
        (("--body", "{"), "--body: not JSON"),
        (("--model", "http://me:secret@localhost/v1"), "--model has a password in it"),
        (("--dtype", "bf16"), "--dtype is for a checkpoint"),
        (("--max-pixels", 9), "--max-pixels is for a bundle and a checkpoint"),
    ],
)
def test_bad_usage_is_one_line_and_nothing_is_asked(server, data: Path, more: tuple, said: str) -> None:
    result = run(*given(server, data), *more)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "secret" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not server.bodies
    assert not (data / "results").exists()


def test_a_wrong_key_ends_the_run_at_once(server, data: Path) -> None:
    server.faults = [chat_server.status(401, "no")] * 100
    result = run(*given(server, data))
    assert result.exit_code == 2
    assert "check --model, --model-name and the key of --api-key-env" in result.stderr
    assert len(server.bodies) <= 16


def test_without_the_client_it_says_what_to_install(server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    result = run(*given(server, data))
    assert result.exit_code == 2
    assert "pip install 'parrot-edge[eval]'" in result.stderr
