"""The files of the nano world: real formats, reproducible, splits apart."""

import base64
import csv
import hashlib
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES
from parrot_train.config import NanoDataConfig
from parrot_train.nano import write
from parrot_train.nano.further import ensure_further_data
from parrot_train.nano.grammar import GRAMMARS

SMALL = NanoDataConfig(seed=3, stage1_scenes=20, stage2_scenes=120, heldout_scenes=12)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nano") / "data"
    write.ensure_data(folder, SMALL)
    return folder


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_records_are_llava_json_with_readable_pictures(world):
    for name, count in (("stage1", 20), ("stage2", 120), ("heldout", 12)):
        records = json.loads((world / f"{name}.json").read_text("utf-8"))
        assert len(records) == count
        for record in records:
            assert Image.open(world / record["image"]).size == (192, 192)
            turns = record["conversations"]
            assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
            assert turns[0]["value"].startswith("<image>\n")
            assert sum(turn["value"].count("<image>") for turn in turns) == 1


def test_stage_1_is_english_and_stage_2_mostly(world):
    stage1 = [record["language"] for record in json.loads((world / "stage1.json").read_text("utf-8"))]
    stage2 = [record["language"] for record in json.loads((world / "stage2.json").read_text("utf-8"))]
    assert set(stage1) == {"en"}
    assert set(stage2) == set(CODES)
    assert 0.45 < stage2.count("en") / len(stage2) < 0.75  # 0.60 of 120, 3 standard deviations


def test_half_of_stage_2_are_lessons(world):
    """A lesson's answers are letters or Yes/No alone; no question of a conversation stands in it twice."""
    short = {*"ABCD"} | {f"{word[:1].upper()}{word[1:]}" for g in GRAMMARS.values() for word in (g.yes, g.no)}
    lessons = 0
    for record in json.loads((world / "stage2.json").read_text("utf-8")):
        asked, answers = ([turn["value"] for turn in record["conversations"][side::2]] for side in (0, 1))
        assert len(set(asked)) == len(asked) <= write.LESSON_QUESTIONS
        lessons += all(answer.rstrip(".。") in short for answer in answers)
    assert 0.36 < lessons / 120 < 0.7  # a half, 3 standard deviations; of the others, few have short answers alone


def test_same_seed_same_bytes_and_nothing_is_written_twice(world, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*.jpg")}
    write.ensure_data(world, SMALL)
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*.jpg")} == before
    write.ensure_data(tmp_path / "again", SMALL)
    assert _hashes(tmp_path / "again") == _hashes(world)


def test_another_world_replaces_the_folder(tmp_path):
    few = NanoDataConfig(seed=3, stage1_scenes=2, stage2_scenes=2, heldout_scenes=2)
    write.ensure_data(tmp_path / "data", few)
    fewer = NanoDataConfig(seed=3, stage1_scenes=1, stage2_scenes=2, heldout_scenes=2)
    assert len(json.loads(write.ensure_data(tmp_path / "data", fewer)["stage1"].read_text("utf-8"))) == 1
    assert len(list((tmp_path / "data" / "stage1").iterdir())) == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    config = NanoDataConfig(stage1_scenes=2, stage2_scenes=2, heldout_scenes=2)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name, said in (("photos", r"holds thesis\.txt and no nano world"), ("file", "is a file")):
        with pytest.raises(InputError, match=said):
            write.ensure_data(tmp_path / name, config)
        with pytest.raises(InputError, match=said):
            write.ensure_evaluation(tmp_path / name)
        with pytest.raises(InputError, match=said):
            ensure_further_data(tmp_path / name, ["es"], config, workers=0)
    assert (tmp_path / "photos" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, list[dict]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "CHOICE_ROWS", 2)
        patch.setattr(write, "YES_NO_PAIRS", 2)
        patch.setattr(write, "OPEN_ROWS", 1)
        files = write.ensure_evaluation(tmp_path_factory.mktemp("nano") / "evaluation")
    csv.field_size_limit(1 << 30)
    assert files["zh"].name == "nano_cn.tsv"
    return {
        code: list(csv.DictReader(path.open(encoding="utf-8", newline=""), delimiter="\t"))
        for code, path in files.items()
    }


def test_evaluation_asks_the_same_in_every_language(tables):
    for column in ("index", "image", "answer", "category", "l2-category"):
        for code in CODES:
            mine, english = (
                [row[column] for row in tables[each] if column != "answer" or row["l2-category"] != "open"]
                for each in (code, "en")
            )
            assert mine == english, (code, column)


def test_evaluation_pictures_are_base64_or_another_rows_index(tables):
    for row in tables["ar"]:
        if len(row["image"]) > 64:
            assert Image.open(io.BytesIO(base64.b64decode(row["image"]))).size == (192, 192)
        else:
            first = tables["ar"][int(row["image"])]
            assert len(first["image"]) > 64
            assert first["category"] == row["category"]


def test_yes_no_rows_come_in_pairs_of_both_answers(tables):
    rows = [row for row in tables["tr"] if row["l2-category"] == "yes-no"]
    assert [row["answer"] for row in rows] == ["A", "B"] * (len(rows) // 2)
    assert {(row["A"], row["B"], row["C"], row["D"]) for row in rows} == {("evet", "hayır", "", "")}
