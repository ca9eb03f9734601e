"""Parts without anything in common, the same for the same seed."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_runtime.errors import InputError
from parrot_train.data.partition import MANIFEST, parse_counts, partition


def item(number, image):
    value = f"Question {number}?" if image is None else f"<image>\nQuestion {number}?"
    turns = [{"from": "human", "value": value}, {"from": "gpt", "value": "Yes."}]
    return {"id": f"r{number}", "conversations": turns} | ({} if image is None else {"image": image})


@pytest.fixture
def source(tmp_path):
    def write(items):
        path = tmp_path / "in" / "all.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(items))
        return path

    return write


def split(path, output, counts, *, seed=0, **options):
    result = partition(path, counts, output, seed=seed, **{"images": None, "force": False, **options})
    return result, {part.language: json.loads((output / part.file).read_text()) for part in result.parts}


def test_the_parts_have_the_asked_sizes_and_nothing_in_common(source, tmp_path):
    path = source([item(number, f"p/{number}.png") for number in range(60)])
    result, parts = split(path, tmp_path / "parts", {"zh": 30, "tr": 11, "ru": 7})
    assert {code: len(part) for code, part in parts.items()} == {"zh": 30, "tr": 11, "ru": 7}
    names = [each["id"] for part in parts.values() for each in part]
    assert len(set(names)) == len(names)
    assert (result.left, result.records) == (12, 60)
    for part in parts.values():
        numbers = [int(each["id"][1:]) for each in part]
        assert numbers == sorted(numbers)  # in the source's order
        assert [each["image"] for each in part] == [f"../in/p/{number}.png" for number in numbers]
    # At random: no part is a run of the source.
    assert max(int(each["id"][1:]) for each in parts["zh"]) > 40 > 20 > min(int(e["id"][1:]) for e in parts["ru"])


def test_the_manifest_tells_all_of_it(source, tmp_path):
    path = source([item(number, f"p/{number}.png") for number in range(9)])
    split(path, tmp_path / "parts", {"pt": 4}, seed=5)
    manifest = json.loads((tmp_path / "parts" / MANIFEST).read_text())
    part = tmp_path / "parts" / "all-pt.json"
    assert manifest == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "seed": 5,
        "records": 9,
        "left": 5,
        "parts": [
            {
                "language": "pt",
                "file": "all-pt.json",
                "asked": 4,
                "records": 4,
                "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
            }
        ],
    }


def test_a_seed_decides_and_the_order_of_asking_does_not(source, tmp_path):
    path = source([item(number, f"p/{number}.png") for number in range(40)])
    hashes = {}
    for name, text, seed in (("a", "zh=9,tr=5", 1), ("b", "tr=5,zh=9", 1), ("c", "zh=9,tr=5", 2)):
        result, _ = split(path, tmp_path / name, parse_counts(text), seed=seed, images=tmp_path)
        hashes[name] = [part.sha256 for part in result.parts]
    assert hashes["a"] == hashes["b"] != hashes["c"]


@settings(max_examples=60, deadline=None)
@given(images=st.lists(st.lists(st.integers(0, 12), max_size=2), min_size=8, max_size=40), seed=st.integers(0, 9))
def test_no_picture_and_no_text_is_in_two_languages(tmp_path_factory, images, seed):
    folder = tmp_path_factory.mktemp("property")
    items = []
    for number, names in enumerate(images):
        marks = "<image>" * len(names)
        text = f"{marks}Question {number}?" if names else f"Text {number % 3}?"
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]
        items.append({"id": number, "image": [f"./{name}.png" for name in names], "conversations": turns})
    path = folder / "all.json"
    path.write_text(json.dumps(items))
    try:
        _, parts = split(path, folder / "parts", {"zh": 3, "ar": 2}, seed=seed, images=folder)
    except InputError:  # so many share pictures that they cannot be split into these numbers
        return
    seen = {}
    for code, part in parts.items():
        for each in part:
            for thing in each["image"] or [each["conversations"][0]["value"]]:
                assert seen.setdefault(thing, code) == code


def test_too_much_is_refused_and_nothing_written(source, tmp_path):
    path = source([item(number, "one.png") for number in range(6)])
    with pytest.raises(InputError, match="6 records are fewer than the 7"):
        split(path, tmp_path / "parts", {"zh": 4, "tr": 3})
    with pytest.raises(InputError, match=r"kept together the numbers cannot be met \(zh by 3, tr by 3\)"):
        split(path, tmp_path / "parts", {"zh": 3, "tr": 3})
    assert not (tmp_path / "parts").exists()
    split(path, tmp_path / "parts", {"zh": 6})
    with pytest.raises(InputError, match="exists already"):
        split(path, tmp_path / "parts", {"zh": 6})


def test_force_replaces_a_partition_and_nothing_beside_it(source, tmp_path):
    path = source([item(number, "one.png") for number in range(6)])
    split(path, tmp_path / "parts", {"zh": 6})
    split(path, tmp_path / "parts", {"tr": 6}, force=True)
    assert sorted(each.name for each in (tmp_path / "parts").iterdir()) == ["all-tr.json", "partition.json"]
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(InputError, match="is no part of a partition, so --force does not replace it"):
        split(path, path.parent, {"zh": 6}, force=True)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("text", ["zh", "zh=", "zh=0", "zh=-3", "zh=3.5", "zh=1,zh=2", "xx=3", "", "zh=1e3"])
def test_counts_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--languages"):
        parse_counts(text)


def test_counts_are_read():
    assert parse_counts("tr=17, zh=71") == {"zh": 71, "tr": 17}
