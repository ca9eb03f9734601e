"""Reading LLaVA JSON: what is taken, and the reason given for everything that is not."""

import json

import pytest

from parrot_runtime.errors import InputError
from parrot_runtime.prompt import Turn
from parrot_train.data.records import UNDETERMINED, parse_records, read_json


def conversation(*pairs):
    return [{"from": role, "value": text} for role, text in pairs]


GOOD = {"image": "a.png", "conversations": conversation(("human", "<image>\nWhat?"), ("gpt", "A cat."))}


def parse_one(item):
    records, problems = parse_records([item], file="f.json")
    assert len(records) + len(problems) == 1
    return records[0] if records else problems[0]


def test_images_are_counted_and_taken_out_of_the_text():
    item = {
        "id": 12,
        "image": ["a.png", "b.png"],
        "language": "tr",
        "conversations": conversation(
            ("system", "Kısa yaz."),
            ("human", "Bu ne?\n<image>"),
            ("gpt", "Bir <image>."),
            ("human", "<image>"),
            ("gpt", "İki."),
        ),
    }
    record = parse_one(item)
    assert record.turns == (
        Turn("user", "Bu ne?", 1),
        Turn("assistant", "Bir <image>."),  # in an answer it is text
        Turn("user", "", 1),
        Turn("assistant", "İki."),
    )
    assert (record.name, record.language, record.system, record.images) == ("12", "tr", "Kısa yaz.", ("a.png", "b.png"))


def test_a_record_needs_neither_image_nor_language_nor_id():
    record = parse_one({"conversations": conversation(("human", " two spaces kept "), ("gpt", "Yes."))})
    assert record.turns[0] == Turn("user", " two spaces kept ", 0)
    assert (record.images, record.language, record.name) == ((), UNDETERMINED, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conversations": []}, "should be a list of turns"),
        ({"conversations": "x"}, "should be a list of turns"),
        ({"conversations": ["x"]}, "turn 0 should be an object"),
        ({"conversations": conversation(("human", "<image>?"))}, "does not end with an answer"),
        ({"conversations": conversation(("system", "s"))}, "does not end with an answer"),
        (
            {"conversations": conversation(("gpt", "a"), ("human", "<image>b"))},
            "turn 0 is from 'gpt' where 'human' is due",
        ),
        ({"conversations": conversation(("human", "<image>"), ("human", "b"))}, "turn 1 is from 'human'"),
        ({"conversations": conversation(("human", "<image>"), ("bot", "b"))}, "turn 1 is from 'bot'"),
        ({"conversations": conversation(("human", "<image>"), ("system", "b"))}, "turn 1 is from 'system'"),
        ({"conversations": conversation(("human", "<image>"), ("gpt", " \n"))}, "turn 1 is an empty answer"),
        ({"conversations": conversation(("human", " "), ("gpt", "a"))}, "turn 0 is an empty question"),
        ({"conversations": conversation(("human", "<image>"), ("gpt", 3))}, "turn 1 has no text"),
        ({"conversations": conversation(("human", "<image>\ud800"), ("gpt", "a"))}, "lone surrogate"),
        ({"conversations": conversation(("human", "no mark"), ("gpt", "a"))}, "0 <image> marks"),
        ({"conversations": conversation(("human", "<image><image>"), ("gpt", "a"))}, "2 <image> marks"),
        ({"image": None}, "but 0 images are named"),
        ({"image": 3}, "'image' should be a path"),
        ({"image": ["a.png", ""]}, "'image' should be a path"),
        ({"language": None}, "'language' should be a code"),
        ({"language": "\ud800"}, "'language' should be a code"),
        ({"image": "\ud800.png"}, "'image' holds a lone surrogate"),
    ],
)
def test_a_bad_record_says_why(change, words):
    problem = parse_one({**GOOD, "id": "n7"} | change)
    assert words in problem.reason
    assert str(problem).startswith("f.json[0] (id n7): ")


def test_half_a_character_in_an_id_is_shown_as_what_it_is():
    records, problems = parse_records([{**GOOD, "id": "\ud800"}, {"id": "\ud800"}], file="f.json")
    assert records[0].name == problems[0].name == "\\ud800"


def test_every_problem_is_found_and_the_good_ones_stay():
    records, problems = parse_records([GOOD, 3, GOOD, {"conversations": 1}, GOOD], file="f.json")
    assert [record.row for record in records] == [0, 2, 4]
    assert [problem.row for problem in problems] == [1, 3]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", "[" * 100_000])
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path, text):
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "f.json"
    with pytest.raises(InputError, match="no such file"):
        read_json(path)
    path.write_bytes(json.dumps([GOOD]).encode("utf-16"))
    with pytest.raises(InputError, match="not readable as JSON"):
        read_json(path)
