"""``parrot-eval`` on the benchmarks beside MMMB, from the command line to the files it leaves."""

import json
from pathlib import Path

import chat_server
import pytest
from click.testing import CliRunner
from tsv_files import choice, picture

from parrot_evaluation.cli import main

LLAVA = ["index", "image", "question", "caption", "gpt4_ans", "category"]
MME = ["index", "image", "question", "answer", "category", "image_path"]


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def llava(make_tsv, tmp_path: Path) -> Path:
    texts = {"en": ("a cat on a mat", "A cat."), "cn": ("垫子上有一只猫", "一只猫。")}
    for code, (caption, reference) in texts.items():
        name = "LLaVABench.tsv" if code == "en" else f"LLaVABench_{code}.tsv"
        rows = [
            {"caption": caption, "gpt4_ans": reference, "category": category}
            for category in ("conv", "detail", "complex")
        ]
        make_tsv(name, rows, LLAVA)
    return tmp_path


@pytest.fixture
def server():
    pytest.importorskip("httpx2")
    with chat_server.serving({}) as running:
        running.answer = lambda body: "8 6\nbecause"
        yield running


def test_llava_bench_in_two_languages_and_a_second_run(llava: Path, bundle: Path, server, tmp_path: Path) -> None:
    out = tmp_path / "results"
    arguments = ("llava-bench", "--model", bundle, "--data", llava, "-o", out, "--judge", server.url)
    result = run(*arguments, "--judge-model", "gpt", "--judge-both-orders")
    assert result.exit_code == 0, result.output
    # The judge always gives the first 8 and the second 6: no better answer, all of it position.
    overall = next(line for line in result.stdout.splitlines() if line.startswith("| overall"))
    assert [cell.strip() for cell in overall.strip("|").split("|")][1:5] == [
        *("100.0 (3)", "70.0 (3)", "70.0 (3)", "2.0 (3)")
    ]
    assert "en: both orders judged: the answer that stands first gets +2.00 points" in result.stdout
    assert "zh: both orders judged" in result.stdout
    assert len(server.bodies) == 12
    assert run(*arguments, "--judge-model", "gpt", "--judge-both-orders").stdout == result.stdout
    assert len(server.bodies) == 12
    (folder,) = (out / "LLaVA-Bench").iterdir()
    assert len((folder / "judgements.jsonl").read_text("utf-8").splitlines()) == 12
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["settings"]["judge"]["model"] == "gpt"
    assert {score["group"] for score in report["scores"]} == {"overall", "conv", "detail", "complex"}
    assert run(*arguments, "--judge-model", "gpt", "--force").exit_code == 0
    assert len(server.bodies) == 18
    assert "This run: judged by gpt;" in (folder / "report.md").read_text("utf-8")
    # Another judge's figures stand beside the first's.
    assert run(*arguments, "--judge-model", "other").exit_code == 0
    judges = [json.loads(path.read_text("utf-8"))["settings"]["judge"] for path in folder.rglob("report.json")]
    assert {(each["model"], each["both_orders"]) for each in judges} == {
        ("gpt", True),
        ("gpt", False),
        ("other", False),
    }


def test_a_judge_that_writes_prose_is_told(llava: Path, bundle: Path, server, tmp_path: Path) -> None:
    server.answer = lambda body: "Assistant 2 is better."
    judge = ("--judge", server.url, "--judge-model", "gpt", "--languages", "en")
    result = run("LLaVA-Bench", "--model", bundle, "--data", llava, "-o", tmp_path / "results", *judge)
    assert result.exit_code == 0, result.output
    assert "none of the 3 judgements of overall could be read" in result.stdout


def test_mme_with_a_picture_by_reference_and_its_checksum(make_tsv, bundle: Path, tmp_path: Path) -> None:
    rows = [
        {"question": "Is it?", "answer": answer, "category": "count", "image_path": "count/1.jpg", "image": image}
        for answer, image in (("Yes", picture()), ("No", "0"))
    ]
    make_tsv("MME.tsv", rows, MME)
    result = run("mme", "--model", bundle, "--data", tmp_path, "-o", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "| perception" in result.stdout
    assert "9 of 10 categories" not in result.stdout
    assert "perception is the sum of 1 of 10 categories" in result.stdout
    assert "differs from the one published by VLMEvalKit" in result.stdout
    assert "academic research only" in result.stdout


def test_science_qa_leaves_out_rows_without_a_picture(make_tsv, bundle: Path, tmp_path: Path) -> None:
    make_tsv("ScienceQA_TEST.tsv", [choice(), choice(image=""), choice(hint="A hint.")])
    result = run("ScienceQA", "--model", bundle, "--data", tmp_path, "-o", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "1 rows without a picture were left out" in result.stdout


def test_answers_that_are_no_option_are_told(make_tsv, bundle: Path, tmp_path: Path) -> None:
    make_tsv("RealWorldQA.tsv", [choice("A", "left", "right"), choice("C", "left", "right")])
    result = run("realworldqa", "--model", bundle, "--data", tmp_path, "-o", tmp_path / "results")
    assert result.exit_code == 0, result.output
    assert "1 rows whose answer is none of their options count as wrong, as in VLMEvalKit" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("LLaVA-Bench",), "a model has to judge the answers; name one with --judge URL"),
        (("LLaVA-Bench", "--judge", "http://x/v1"), "give the name of its model with --judge-model"),
        (("LLaVA-Bench", "--judge-model", "gpt"), "give its address with --judge"),
        (("LLaVA-Bench", "--judge", "x", "--judge-model", "m"), "--judge x: expected an address"),
        (("MME", "--judge", "http://x/v1", "--judge-model", "m"), "MME is scored without a judge"),
        (
            ("LLaVA-Bench", "--judge", "http://x", "--judge-model", "m", "--judge-key-env", "NO_SUCH"),
            "NO_SUCH: there is",
        ),
        (("LLaVA-Bench", "--judge", "http://x", "--judge-model", "m", "--judge-body", "["), "--judge-body: not JSON"),
        (("MME",), "and --download to have them fetched there"),
        (("MME", "--download"), "give the folder the files go to with --data"),
        (("MME", "--mirror", "http://x"), "give --download too"),
        (("nano", "--download", "--data", "x"), "nothing is to be fetched"),
        (("MMStar", "--data", "nowhere"), "give the one that holds MMStar.tsv"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(tmp_path: Path, bundle: Path, arguments: tuple, said: str) -> None:
    result = run(*arguments, "--model", bundle, "-o", tmp_path / "results")
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_no_key_can_be_given_on_the_command_line() -> None:
    text = run("run", "--help").stdout
    assert "--judge-key-env" in text
    assert "--judge-key " not in text


def test_downloaded_and_measured_in_one_command(
    make_tsv, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import functools
    import hashlib
    import http.server
    import threading

    from parrot_evaluation.published import Published

    path = make_tsv("MMStar.tsv", [choice()])
    data = path.read_bytes()
    served = tmp_path / "served"
    served.mkdir()
    path.rename(served / "MMStar.tsv")
    published = (Published("MMStar.tsv", "http://unused/MMStar.tsv", hashlib.md5(data).hexdigest(), "VLMEvalKit"),)
    monkeypatch.setattr("parrot_evaluation.published.PUBLISHED", published)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        mirror = f"http://127.0.0.1:{server.server_address[1]}"
        fetched = ("--data", tmp_path / "data", "--download", "--mirror", mirror)
        result = run("MMStar", "--model", bundle, *fetched, "-o", tmp_path / "results")
        server.shutdown()
        thread.join()
    assert result.exit_code == 0, result.output
    assert "its card states no licence" in result.stderr
    assert "as published by VLMEvalKit" in result.stdout
