"""The commands of `parrot-train data` as a person runs them: exit codes, one line of error, JSON."""

import json

import pytest
from chat_server import serving
from small_records import record
from small_translation import DICTIONARY, conversation, expected

from parrot_runtime.image import MAX_PIXELS
from parrot_train.cli import main
from parrot_train.config import DataConfig


@pytest.fixture
def parrot(capsys):
    def call(*arguments, code=0):
        with pytest.raises(SystemExit) as end:
            main(["data", *map(str, arguments)], prog_name="parrot-train")
        out, err = capsys.readouterr()
        assert (end.value.code or 0) == code, err
        return out, err

    return call


def test_check_prints_the_table_and_ends_with_2_on_errors(parrot, data, backbones, tmp_path):
    out, err = parrot("check", data(), "--tokenizer", backbones.llm, "--image-tokens", 5, "--workers", 0)
    assert out.splitlines()[0].split()[:3] == ["language", "records", "turns"]
    assert "tokens p50" in out
    assert err == ""
    bad = data([record(0), {"id": "x"}], "bad.json")
    out, err = parrot("check", bad, "--report", tmp_path / "r.json", "--json", code=2)
    assert json.loads(out)["files"] == {str(bad): 2}
    assert err.startswith("parrot-train: 1 errors in 2 records")
    assert "bad.json[1] (id x): 'conversations' should be a list of turns" in err
    assert json.loads((tmp_path / "r.json").read_text())["errors"][0]["row"] == 1
    _, err = parrot("check", tmp_path / "none.json", code=2)
    assert "there is no such file" in err
    assert err.count("\n") == 1


def test_an_output_that_cannot_be_is_said_before_the_work(parrot, data, tmp_path, monkeypatch):
    path, taken = data(), tmp_path / "r.json"
    taken.write_text("precious")
    monkeypatch.setattr("parrot_train.data.survey.survey", lambda *_, **__: pytest.fail("was looked at"))
    monkeypatch.setattr("parrot_train.data.stats.count", lambda *_: pytest.fail("was counted"))
    for words, told in (
        (("check", path, "--report", taken), "exists already; give --force"),
        (("check", path, "--report", taken / "r.json"), "r.json is a file; give another folder"),
        (("stats", path, "--plot", tmp_path / "a.txt"), "cannot be written in that format"),
        (("stats", path, "--plot", taken / "a.svg"), "is a file; give another folder"),
    ):
        _, err = parrot(*words, code=2)
        assert told in err
    assert taken.read_text() == "precious"


def test_check_refuses_settings_that_mean_nothing(parrot, data, tmp_path):
    path = data()
    _, err = parrot("check", path, "--tokenizer", tmp_path / "nope", code=2)
    assert "there is no" in err
    assert err.count("\n") == 1
    for option in ("--image-tokens", "--max-length", "--max-pixels"):
        parrot("check", path, option, -1, code=2)


def test_the_largest_picture_is_that_of_a_training(parrot, data):
    path = data()
    _, err = parrot("check", path, "--max-pixels", 5, "--workers", 0, code=2)
    assert "the limit is 5" in err
    (option,) = (each for each in main.commands["data"].commands["check"].params if each.name == "max_pixels")
    assert option.default == DataConfig().max_pixels == MAX_PIXELS


def test_stats_partition_and_mix(parrot, data, tmp_path):
    path = data()
    out, _ = parrot("stats", path, "--json", "--plot", tmp_path / "pie.svg")
    assert json.loads(out)["languages"] == {"en": 14, "zh": 13, "tr": 13}
    assert (tmp_path / "pie.svg").read_text().startswith("<?xml")
    # Four of the pictures have five records each, with the texts of no picture kept by themselves.
    out, _ = parrot("partition", path, "--languages", "zh=8,tr=4", "-o", tmp_path / "parts", "--seed", 3, "--json")
    assert [part["records"] for part in json.loads(out)["parts"]] == [8, 4]
    out, _ = parrot("mix", path, "--samples", 10, "--by", "language", "--temperature", "inf", "-o", tmp_path / "m.json")
    assert "m.json: 10 records" in out
    _, err = parrot("mix", path, "-o", tmp_path / "m.json", code=2)
    assert "exists already" in err
    out, _ = parrot("mix", path, "-o", tmp_path / "m.json", "--force", "--json")
    assert json.loads(out)["samples"] == 40


def test_registry(parrot):
    out, _ = parrot("registry", "--json")
    assert len(json.loads(out)) == 9


def test_from_a_source_to_a_calibrated_part(parrot, tmp_path):
    source = tmp_path / "en.json"
    source.write_text(json.dumps([conversation(number) for number in range(12)]))
    parrot("partition", source, "--languages", "tr=6", "-o", tmp_path / "parts")
    part, done = tmp_path / "parts" / "en-tr.json", tmp_path / "tr.json"
    with serving(DICTIONARY) as server:
        out, _ = parrot(
            *("translate", part, "--to", "tr", "--endpoint", server.url, "--model", "m", "-o", done),
            *("--price-in", 1, "--price-out", 2),
        )
    assert f"{done}: 6 conversations, 0 flagged, 0 failed" in out
    assert f"cost {(server.tokens[0] + 2 * server.tokens[1]) / 1e6:.4f}" in out
    parrot("sheet", done, "-o", tmp_path / "tr.csv")
    out, _ = parrot("import-sheet", tmp_path / "tr.csv", "--into", done, "-o", tmp_path / "final.json")
    assert "6 conversations, 0 left out; verdicts: none" in out
    items = json.loads((tmp_path / "final.json").read_text("utf-8"))
    for item in items:
        assert [turn["value"] for turn in item["conversations"]] == expected(int(item["id"][1:]))
    out, _ = parrot("stats", tmp_path / "final.json", "--json")
    assert json.loads(out)["languages"] == {"tr": 6}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--to", "en"), "there is nothing to translate"),
        (("--max-cost", 3), "need both --price-in and --price-out"),
        (("--price-in", 3), "need both --price-in and --price-out"),
        (("--body", "{"), "--body: not JSON"),
        (("--body", '{"model": "x"}'), "--body: expected a JSON object without model"),
        (("--endpoint", "localhost"), "expected an address such as"),
    ],
)
def test_translate_refuses_what_makes_no_sense(parrot, tmp_path, more, words):
    given = {"--to": "tr", "--endpoint": "http://127.0.0.1:9/v1", "--model": "m", "-o": tmp_path / "o.json"}
    given |= {more[0]: more[1]}
    _, err = parrot("translate", tmp_path / "in.json", *(each for pair in given.items() for each in pair), code=2)
    assert words in err
    assert err.count("\n") == 1
