"""Further languages of the nano world: their data, and that the six languages' own are untouched by them."""

import dataclasses
import hashlib
import json

import pytest

from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES, FURTHER_CODES
from parrot_train.config import NanoDataConfig
from parrot_train.nano import write
from parrot_train.nano.further import ensure_further_data
from parrot_train.nano.grammar import GRAMMARS

SMALL = NanoDataConfig(seed=3, stage1_scenes=20, stage2_scenes=120, heldout_scenes=12, extend_scenes=60)
# Of the six languages' records before there were others; pictures are left out, for their bytes are Pillow's.
RECORDS = {
    "stage1": "1b54fe7e4d091b0bb721caa9a66628ffaba99c051c94d807bffe488d1061f418",
    "stage2": "67da46b0eb9cbf6aeb9cb7a31ad0a367a29e03f731dce81861f5118651f92e63",
    "heldout": "d4729aa3d31d24a71f37e3d8bb01a54409acc26fb9434683be7b8abcec0865f0",
    "world": "5e092c6c280f96e12edaabcaa9ab2554e68604ab2052f3cea1460086d08a7d9c",
}


def test_every_grammar_is_of_a_known_language():
    assert tuple(GRAMMARS) == (*CODES, *FURTHER_CODES)


def test_the_six_languages_records_are_what_they_were(tmp_path):
    write.ensure_data(tmp_path / "data", SMALL, workers=1)
    for name, digest in RECORDS.items():
        assert hashlib.sha256((tmp_path / "data" / f"{name}.json").read_bytes()).hexdigest() == digest, name


def test_data_in_further_languages_are_asked_as_in_stage_2(tmp_path):
    path = ensure_further_data(tmp_path / "data-es-de", ("es", "de"), SMALL, workers=1)
    records = json.loads(path.read_text("utf-8"))
    languages = [record["language"] for record in records]
    assert len(records) == 60
    assert set(languages) - set(CODES) == {"es", "de"}
    assert 15 < languages.count("es") + languages.count("de") < 45  # a half, 3.9 standard deviations
    assert 4 < languages.count("en") < 32  # 0.6 of the other half, 3.9 standard deviations
    assert all((path.parent / record["image"]).is_file() for record in records)
    kept = path.stat().st_mtime_ns
    assert ensure_further_data(tmp_path / "data-es-de", ("es", "de"), SMALL, workers=1).stat().st_mtime_ns == kept
    alone = dataclasses.replace(SMALL, extend_replay=0.0)
    german = json.loads(ensure_further_data(tmp_path / "data-es-de", ("de",), alone, workers=1).read_text("utf-8"))
    assert {record["language"] for record in german} == {"de"}


def test_a_language_without_a_grammar_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"does not speak 'ko', only en, .*; give LLaVA JSON with --data"):
        ensure_further_data(tmp_path / "data", ("es", "ko"), SMALL, workers=1)


def test_further_languages_are_asked_what_the_six_are(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "CHOICE_ROWS", 1)
    monkeypatch.setattr(write, "YES_NO_PAIRS", 1)
    monkeypatch.setattr(write, "OPEN_ROWS", 1)
    six = write.ensure_evaluation(tmp_path / "six")
    two = write.ensure_evaluation(tmp_path / "two", languages=FURTHER_CODES)
    assert {code: path.name for code, path in two.items()} == {"es": "nano_es.tsv", "de": "nano_de.tsv"}
    english, german = (
        [line.split("\t") for line in path.read_text("utf-8").splitlines()] for path in (six["en"], two["de"])
    )
    assert len(english) == len(german) > 25
    for one, other in zip(english, german, strict=True):
        assert one[:2] == other[:2]  # index and picture
        assert one[9:] == other[9:]  # categories
        assert len(one[8]) > 1 or one[8] == other[8]  # the letter
