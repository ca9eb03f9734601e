import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tsv_files import choice, open_row

from parrot_evaluation.benchmarks import find_benchmark
from parrot_evaluation.cli import main
from parrot_evaluation.routing import Routed, RoutingJournal, distance, summarise
from parrot_evaluation.routing_cli import markdown
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import InputError
from parrot_runtime.parrot import Parrot

NANO = find_benchmark("nano")


@pytest.fixture
def rows(make_tsv):
    files = [make_tsv(f"nano_{code}.tsv", [choice("A"), open_row("red")]) for code in ("en", "tr")]
    return [row for path in files for row in read_tsv(path).rows]


def routed(row, shares=(0.5, 0.5), answers=("A", "A", "B"), words=(("Nedir", 0.25), ("?", 0.25))) -> Routed:
    sample = f"{row.language}-{row.index}"
    rest = 1 - sum(share for _, share in words)
    return Routed(row.language, row.index, sample, answers[0], shares, (0.125, 0.25), answers[1:], words, rest)


def test_means_and_losses_per_language(rows) -> None:
    found = [
        (rows[0], routed(rows[0], shares=(1.0, 0.0))),
        (rows[1], routed(rows[1], answers=("red", "blue", "Red."), words=(("NEDIR", 0.5), ("o", 0.25)))),
        (rows[2], routed(rows[2], shares=(0.25, 0.75))),
    ]
    english, turkish = summarise(NANO, found)
    assert (english.language, english.questions, english.right) == ("en", 2, 2)
    assert english.shares == (0.75, 0.25)
    assert english.changes == (0.125, 0.25)
    assert english.entropy == pytest.approx(0.5)  # one expert alone, and both alike
    assert english.on_question == pytest.approx((0.5 + 0.75) / 2)
    assert english.words == (("Nedir", 0.375), ("?", 0.125), ("o", 0.125))  # in any case, as it was met first
    assert english.right_without == (1, 1)
    assert english.changed_without == (1, 2)
    assert turkish.entropy == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2))
    assert distance(english, turkish) == pytest.approx(0.5)
    assert distance(english, english) == 0


def test_answers_left_to_a_judge_are_not_called_wrong(make_tsv) -> None:
    llava = find_benchmark("LLaVA-Bench")
    row = {"gpt4_ans": "A cat.", "caption": "x", "category": "conv"}
    file = make_tsv("LLaVABench.tsv", [row] * 2, ["index", "image", "question", "caption", "gpt4_ans", "category"])
    read = read_tsv(file, language="en", form=llava.form).rows
    summaries = summarise(llava, [(row, routed(row)) for row in read])
    assert (summaries[0].right, summaries[0].right_without, summaries[0].changed_without) == (None, None, (0, 2))
    text = markdown("routing", summaries)
    assert "Right answers" not in text
    assert "| en English |   2 |         0 |         2 |" in text


def test_questions_come_back(tmp_path: Path, rows) -> None:
    path = tmp_path / "routing.jsonl"
    kept = replace(routed(rows[0]), response="“أحمر” \ud800")
    with RoutingJournal(path) as journal:
        journal.add(kept)
    with path.open("ab") as file:
        file.write(b'{"language": "tr", "ind')  # what a kill leaves
    with RoutingJournal(path) as journal:
        assert journal.get(kept.sample) == kept
        assert journal.get("another") is None
    with RoutingJournal(path, anew=True) as journal:
        assert journal.get(kept.sample) is None


@pytest.mark.parametrize("line", ["{}", "[]", '{"words": [["a"]]}', "nothing"])
def test_a_line_of_another_kind_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "routing.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"line 1: not an explained question .*--force"), RoutingJournal(path):
        pass


def test_the_command_goes_on_where_it_was_cut(bundle: Path, make_tsv, tmp_path: Path, monkeypatch) -> None:
    for code in ("ar", "tr"):
        make_tsv(f"nano_{code}.tsv", [choice("A"), choice("B")])
    explained = []

    def explain(self, picture, question, **options):
        if len(explained) == 3:
            raise KeyboardInterrupt
        explained.append(question)
        return whole(self, picture, question, **options)

    whole = Parrot.explain
    monkeypatch.setattr(Parrot, "explain", explain)
    arguments = ["routing", "nano", "--model", bundle, "--data", tmp_path, "--languages", "ar,tr", "-o", tmp_path / "o"]
    assert CliRunner().invoke(main, list(map(str, arguments))).exit_code == 130
    (folder,) = (tmp_path / "o/nano").iterdir()
    assert len((folder / "routing.jsonl").read_text().splitlines()) == 3
    assert not (folder / "routing.json").exists()
    monkeypatch.setattr(
        Parrot, "explain", lambda *all, **options: (explained.append(all[2]), whole(*all, **options))[1]
    )
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert len(explained) == 4
    assert "| ar Arabic" in result.stdout
    report = json.loads((folder / "routing.json").read_text())
    assert [language["questions"] for language in report["languages"]] == [2, 2]
    lines = [json.loads(line) for line in (folder / "routing.jsonl").read_text().splitlines()]
    shares = [line["shares"] for line in lines if line["language"] == "ar"]
    assert report["languages"][0]["shares"] == pytest.approx([sum(column) / 2 for column in zip(*shares, strict=True)])
    printed = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert json.loads(printed.stdout) == report
    assert len(explained) == 4


def test_a_model_without_experts_is_refused(bundle: Path, tmp_path: Path, make_tsv) -> None:
    import dataclasses

    from tiny_bundle import DIMS, TinyModel, write_bundle

    make_tsv("nano_tr.tsv", [choice("A")])
    llava = write_bundle(tmp_path / "llava", TinyModel(dataclasses.replace(DIMS, experts=0), seed=4))
    arguments = ["routing", "nano", "--model", llava, "--data", tmp_path, "--languages", "tr", "-o", tmp_path / "o"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 2
    assert "the bundle has no experts" in result.stderr
