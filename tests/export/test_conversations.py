"""Drawing the calibration set: balanced, seeded, from every kind of file, and clear about what cannot be used."""

import base64
import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parrot_export.conversations import Conversation, _balanced, draw_samples
from parrot_runtime.choices import multiple_choice
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def record(number: int, language: str, question: str, answer: str, image: str | list | None = "a.png") -> dict:
    marks = "<image>\n" * (0 if image is None else 1 if isinstance(image, str) else len(image))
    turns = [{"from": "human", "value": marks + question}, {"from": "gpt", "value": answer}]
    return {"id": number, "language": language, "conversations": turns} | ({"image": image} if image else {})


@pytest.fixture
def llava(tmp_path):
    """Nine records in each of two languages, of three kinds, and three that cannot serve."""
    (tmp_path / "a.png").write_bytes(picture())
    records = []
    for language in ("en", "tr"):
        for number in range(9):
            question, answer = [
                ("What is there?", "A red field, and nothing else in it at all."),
                ("Which colour?", "Red."),
                (multiple_choice("Which?", ("Red", "Blue"), language), "A"),
            ][number % 3]
            records.append(record(number, language, question, answer))
    records.append(record(90, "en", "Hello?", "Hello.", image=None))
    records.append(record(91, "en", "Both?", "Yes.", image=["a.png", "a.png"]))
    records.append(record(92, "de", "Was?", "Rot."))
    path = tmp_path / "data.json"
    path.write_text(json.dumps(records), "utf-8")
    return path


@pytest.fixture
def tsv(tmp_path):
    path = tmp_path / "bench_cn.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question", "A", "B", "answer", "category"])
        code = base64.b64encode(picture()).decode()
        for number in range(6):
            writer.writerow([number, code, "哪个？", "红", "蓝", "A", ("colour", "place")[number % 2]])
        writer.writerow([9, code, "什么？", "", "", "红色", "colour"])
    return path


def test_nanos_own_set_is_balanced_and_the_same_every_time():
    first, again, other = (draw_samples((), 31, seed).samples for seed in (0, 0, 1))
    assert [one.entry for one in first] == [one.entry for one in again]
    assert [one.turns for one in first] == [one.turns for one in again]
    assert [one.turns for one in first] != [one.turns for one in other]
    for code in CODES:
        kinds = [one.kind for one in first if one.language == code]
        assert len(kinds) == len(set(kinds)) == 31  # every kind of question that nano asks, once
    assert first[0].image().size[0] > 1


def test_llava_records_are_drawn_by_language_and_kind(llava):
    drawn = draw_samples([llava], 6, 0, ("en", "tr"))
    counts: dict[tuple[str, str], int] = {}
    for one in drawn.samples:
        counts[one.language, one.kind] = counts.get((one.language, one.kind), 0) + 1
    assert counts == {(code, kind): 2 for code in ("en", "tr") for kind in ("choice", "long", "short")}
    assert drawn.samples[0].image().size == (9, 7)
    assert drawn.samples[0].entry["source"] == str(llava)
    left_out = " ".join(drawn.notes)
    assert "2 records" in left_out
    assert "in 'de'" in left_out


def test_tables_are_drawn_by_category(tsv):
    drawn = draw_samples([tsv], 4, 0, ("zh",))
    assert sorted(one.kind for one in drawn.samples) == [
        "choice/colour",
        "choice/colour",
        "choice/place",
        "open/colour",
    ]
    assert drawn.samples[0].image().size == (9, 7)
    assert draw_samples([tsv], 40, 0, ("zh",)).notes == ("zh has 7 of 40 samples",)


@pytest.mark.parametrize(
    ("name", "languages", "told"),
    [
        ("data.json", ("en", "ar", "tr"), "no sample in ar; add data in every language"),
        ("data.txt", ("en",), "expected LLaVA JSON"),
        ("none.json", ("en",), "there is no such file"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(llava, name, languages, told):
    with pytest.raises(InputError, match=told) as caught:
        draw_samples([llava.parent / name], 4, 0, languages)
    assert "\n" not in str(caught.value)


def test_bad_records_are_named(tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps([{"conversations": []}]))
    with pytest.raises(InputError, match=r"bad\.json\[0\]: 'conversations' should be a list of turns"):
        draw_samples([tmp_path / "bad.json"], 4, 0)


def test_none_of_a_language_is_no_set():
    with pytest.raises(InputError, match="--per-language is 0"):
        draw_samples((), 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 30))
def test_kinds_differ_by_one_at_most_until_a_pile_is_empty(piles, count):
    kinds = {
        kind: [Conversation("f", f"{kind}{n}", "en", kind, (), lambda: None) for n in range(size)]
        for kind, size in piles.items()
    }
    chosen = _balanced(kinds, count, "seed")
    assert len(chosen) == min(count, sum(piles.values()))
    assert len({one.row for one in chosen}) == len(chosen)
    taken = {kind: sum(one.kind == kind for one in chosen) for kind in kinds}
    assert all(taken[kind] >= min(piles[kind], max(taken.values()) - 1) for kind in kinds)
