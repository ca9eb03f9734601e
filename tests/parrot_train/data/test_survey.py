"""`parrot-train data check`: every error and every warning, held against records whose faults are known."""

import json
from array import array

import numpy as np
import pytest
from small_records import record
from tokenizers import Tokenizer

from parrot_runtime.errors import InputError
from parrot_runtime.prompt import PromptEncoder
from parrot_train.data import survey_report
from parrot_train.data.records import parse_records, read_json
from parrot_train.data.survey import Duplicate, TokenCount, quantiles, survey


@pytest.fixture
def look(data):
    def call(records=None, name="train.json", **options):
        path = data(records, name)
        return survey([path], **{"images": None, "count": None, "workers": 0, **options})

    return call


def test_good_records_are_counted_by_language(look):
    found = look()
    assert found.errors == []
    assert found.pictures == 8
    assert {code: one.records for code, one in found.languages.items()} == {"en": 14, "zh": 13, "tr": 13}
    records = [record(number) for number in range(40)]
    english = [item for item in records if item["language"] == "en"]
    assert found.languages["en"].turns == sum(len(item["conversations"]) for item in english)
    assert found.languages["en"].with_image == sum("image" in item for item in english)
    lengths = [sum(len(turn["value"].replace("<image>\n", "")) for turn in item["conversations"]) for item in english]
    assert sorted(found.languages["en"].characters) == sorted(lengths)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_bad_record_and_every_record_of_a_bad_picture_is_an_error(look, data, workers):
    path = data()
    (path.parent / "pictures" / "3.png").write_bytes(b"no picture")
    records = [record(number) for number in range(3000)]
    records[7] = 3
    records[2900]["conversations"] = []
    records[2950]["image"] = "pictures/missing.png"
    found = look(records, workers=workers)
    by_picture = [n for n in range(3000) if n % 8 == 3 and n % 5 != 4]
    assert [problem.row for problem in found.errors] == sorted({7, 2900, 2950, *by_picture})
    reasons = {problem.row: problem.reason for problem in found.errors}
    assert "expected an object" in reasons[7]
    assert "should be a list of turns" in reasons[2900]
    assert "missing.png" in reasons[2950]
    assert "3.png" in reasons[3]
    assert sum(found.files.values()) == 3000


def test_lengths_in_tokens_are_those_of_training(look, backbones):
    encoder = PromptEncoder(Tokenizer.from_file(str(backbones.tokenizer)))
    records, _ = parse_records([record(number) for number in range(40)], file="f")
    lengths = {code: [] for code in ("en", "zh", "tr")}
    for each in records:
        lengths[each.language].append(len(encoder.encode(each.turns, image_tokens=5).input_ids))
    longest = max(map(max, lengths.values())) - 1
    found = look(count=TokenCount(backbones.tokenizer, image_tokens=5, max_length=longest))
    for code, expected in lengths.items():
        assert sorted(found.languages[code].tokens) == sorted(expected)
        assert found.languages[code].cut == sum(length > longest for length in expected)
    assert sum(one.cut for one in found.languages.values()) > 0


def test_a_record_of_which_no_answer_is_left_is_an_error(look, backbones):
    found = look(count=TokenCount(backbones.tokenizer, image_tokens=5, max_length=20))
    assert len(found.errors) == 40
    assert "no answer token within 20 tokens" in found.errors[0].reason


def test_duplicates_are_told_once_with_what_says_most(look):
    def item(name, image, question, answer):
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        return {"id": name, "language": "en", "image": f"pictures/{image}.png", "conversations": turns}

    found = look(
        [
            item("a", 0, "What is it?", "A cat."),
            item("b", 0, "What is it?", "A cat."),  # the whole conversation
            item("c", 0, "What is it?", "A dog."),  # picture and question
            item("a", 1, "What is it?", "A cat."),  # the id
            item("d", 1, "What is that?", "A cat."),
            item("a", 0, "What is it?", "A cat."),  # everything
        ]
    )
    told = {(duplicate.row, duplicate.of_row, duplicate.kind) for duplicate in found.duplicates}
    assert told == {(1, 0, "conversation"), (5, 0, "conversation"), (2, 0, "image and question"), (3, 0, "id")}
    assert found.languages["en"].duplicates == 4
    assert found.errors == []


def test_duplicates_are_found_across_files(data):
    records = [record(number) for number in range(6)]
    one, two = data(records, "one.json"), data([*records[3:4], record(33)], "two.json")
    found = survey([one, two], images=None, count=None, workers=0)
    assert found.duplicates == [Duplicate("conversation", str(two), 0, str(one), 3)]


def test_text_in_another_language_than_stated_is_a_warning(look):
    records = [record(number) for number in range(6)]
    records[0]["language"] = "pt"  # its words are English
    records[1]["language"] = "xx"
    del records[2]["language"]
    found = look(records)
    assert [(problem.row, problem.reason) for problem in found.other_language] == [
        (0, "said to be in pt, reads as en"),
        (1, "'xx' is none of the codes en, zh, pt, ar, tr, ru, es, de"),
    ]
    assert found.errors == []
    assert found.languages["und"].seen_as == {"tr": 1}
    lines = "\n".join(survey_report.describe(found))
    assert "2 records read as another language" in lines
    assert "1 records name no language; they read as: tr 1" in lines


def test_the_report_has_everything_and_the_refusal_the_first_of_it(look, tmp_path):
    found = look([*[record(number) for number in range(5)], *[{"id": f"x{number}"} for number in range(30)]])
    report = tmp_path / "report.json"
    survey_report.write_report(report, found, force=False)
    written = json.loads(report.read_text("utf-8"))
    assert len(written["errors"]) == 30
    assert written["errors"][-1]["name"] == "x29"
    assert written["languages"]["en"]["records"] == 2
    with pytest.raises(InputError) as caught:
        survey_report.refuse_errors(found, report)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("30 errors in 35 records")
    assert len(lines) == 1 + survey_report.SHOWN + 1
    assert lines[-1] == f"  … and 10 more; all are in {report}"
    survey_report.refuse_errors(look(), None)


def test_quantiles_are_lengths_that_occur():
    values = np.random.default_rng(5).integers(1, 900, 33)
    got = quantiles(array("L", [int(value) for value in values]))
    ordered = sorted(values)
    assert got == {"median": ordered[16], "p95": ordered[31], "max": ordered[32]}
    assert quantiles(array("L")) == {}


def test_pictures_may_lie_in_a_folder_of_their_own(look, data, tmp_path):
    path = data(name="elsewhere.json")
    moved = tmp_path / "moved"
    path.parent.joinpath("pictures").rename(moved)
    found = survey([path], images=tmp_path, count=None, workers=0)
    assert len(found.errors) == sum("image" in item for item in read_json(path))
    (moved.parent / "pictures").symlink_to(moved)
    assert survey([path], images=tmp_path, count=None, workers=0).errors == []
