"""From files to batches: what a batch holds, what is cut, what is refused, what is left out and reported."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import IMAGE_TOKEN_ID, PromptEncoder
from parrot_train.config import DataConfig
from parrot_train.data.check import BadRecordsError, judge
from parrot_train.data.collator import IGNORED, ImageChangedError, LengthBatches, RankBatches, as_batch
from parrot_train.data.prepare import prepare
from parrot_train.data.records import Problem, parse_records

IMAGE_TOKENS = 5
RECIPE = ImageRecipe.clip(16)
SETTINGS = DataConfig(workers=0, image_cache="pixels", max_length=200)


@pytest.fixture
def ready(backbones, tmp_path):
    """Prepare files with changed settings."""

    def call(*files, **changes):
        return prepare(
            files,
            replace(SETTINGS, **changes),
            tokenizer=backbones.tokenizer,
            recipe=RECIPE,
            image_tokens=IMAGE_TOKENS,
            fallback=tmp_path,
        )

    return call


@pytest.mark.parametrize("image_cache", ["pixels", "none"])
def test_a_batch_is_the_padded_prompts_and_the_images_in_order(data, ready, backbones, image_cache):
    path = data()
    conversations = ready(path, image_cache=image_cache).conversations
    numbers = [13, 4, 6, 0, 39]  # 4 and 39 have no image, 6 and 13 two turns
    batch = conversations.__getitems__(numbers)
    encoder = PromptEncoder(Tokenizer.from_file(str(backbones.tokenizer)))
    records, _ = parse_records(json.loads(path.read_text()), file="")
    pictures = []
    for line, number in enumerate(numbers):
        expected = encoder.encode(records[number].turns, image_tokens=IMAGE_TOKENS)
        length = len(expected.input_ids)
        assert batch["input_ids"][line, :length].tolist() == expected.input_ids.tolist()
        padding = batch["input_ids"].shape[1] - length
        assert batch["prompt_mask"][line].tolist() == expected.router_mask.tolist() + [False] * padding
        assert set(batch["input_ids"][line, length:].tolist()) <= {encoder.pad_id}
        labels = np.where(expected.labels_mask, expected.input_ids, IGNORED)
        assert batch["labels"][line, :length].tolist() == labels.tolist()
        assert set(batch["labels"][line, length:].tolist()) <= {IGNORED}
        assert conversations.language_codes[batch["languages"][line]] == records[number].language
        pictures += [preprocess(read_image(path.parent / name), RECIPE) for name in records[number].images]
        assert conversations.describe(number) == f"{path}[{number}]"
    np.testing.assert_array_equal(batch["pixel_values"].numpy(), np.stack(pictures))  # same operations: bit-equal
    longest = conversations.lengths[numbers].max()
    assert longest <= batch["input_ids"].shape[1] < longest + 16
    assert batch["input_ids"].shape[1] % 16 == 0
    assert conversations.__getitems__([4, 39])["pixel_values"].shape == (0, 3, 16, 16)


def test_files_are_joined_and_their_languages_with_them(data, ready):
    one = data([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}], "one.json")
    prepared = ready(one, data())
    conversations = prepared.conversations
    assert len(conversations) == 41
    assert conversations.language_codes == ["und", "en", "tr", "zh"]
    assert [source["records"] for source in prepared.sources] == [1, 40]
    assert conversations.describe(1).endswith("train.json[0]")
    batch = conversations.__getitems__([0, 1])
    assert batch["languages"].tolist() == [0, 1]
    assert batch["pixel_values"].shape == (1, 3, 16, 16)


def test_a_long_sample_is_cut_and_never_through_an_image(data, ready):
    item = {
        "image": ["pictures/0.png", "pictures/1.png"],
        "conversations": [
            {"from": "human", "value": "<image>a"},
            {"from": "gpt", "value": "yes"},
            {"from": "human", "value": "<image>b"},
            {"from": "gpt", "value": "no"},
        ],
    }
    path = data([item])
    conversations = ready(path).conversations
    whole = conversations.__getitems__([0])
    images = (whole["input_ids"][0] == IMAGE_TOKEN_ID).nonzero().flatten().tolist()
    assert len(images) == 2 * IMAGE_TOKENS
    second = images[IMAGE_TOKENS]
    # Uncut; after the second image; in its last, middle and first position; just before it.
    for limit, length, count in (
        (500, conversations.lengths[0], 2),
        (second + 5, second + 5, 2),
        (second + 4, second, 1),
        (second + 1, second, 1),
        (second, second, 1),
        (second - 1, second - 1, 1),
    ):
        cut = ready(path, max_length=limit).conversations
        batch = cut.__getitems__([0])
        assert cut.lengths[0] == length, limit
        assert torch.equal(batch["input_ids"][0, :length], whole["input_ids"][0, :length])
        assert batch["pixel_values"].shape[0] == count, limit
        assert (batch["input_ids"] == IMAGE_TOKEN_ID).sum() == count * IMAGE_TOKENS


def bad_records(data):
    """20 records of which 1, 3, 5, 8 and 11 are bad, each for another reason."""
    path = data()
    items = json.loads(path.read_text())[:20]
    items[1]["image"] = "pictures/none.png"
    items[3]["conversations"][1]["from"] = "bot"
    (path.parent / "pictures" / "cut.png").write_bytes((path.parent / "pictures" / "1.png").read_bytes()[:70])
    items[5]["image"] = "pictures/cut.png"
    items[8]["conversations"][0]["value"] = "<image>" + "long " * 300
    del items[11]["image"]
    path.write_text(json.dumps(items))
    return path


def test_all_bad_records_are_listed_together(data, ready):
    path = bad_records(data)
    with pytest.raises(BadRecordsError) as caught:
        ready(path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("5 of 20 records cannot be used")
    assert "--max-bad-fraction 0.25" in lines[0]
    for line, row, words in zip(
        lines[1:], (1, 3, 5, 8, 11), ("none.png", "'bot'", "cut.png", "max_length = 200", "0 images"), strict=True
    ):
        assert f"{path}[{row}] (id r{row})" in line
        assert words in line
    assert caught.value.exit_code == 2


def test_bad_records_are_left_out_by_rule_and_reported(data, ready):
    path = bad_records(data)
    with pytest.raises(BadRecordsError):
        ready(path, max_bad_fraction=0.24)
    prepared = ready(path, max_bad_fraction=0.25)
    kept = [prepared.conversations.describe(number) for number in range(len(prepared.conversations))]
    assert kept == [f"{path}[{row}]" for row in range(20) if row not in (1, 3, 5, 8, 11)]
    assert [problem["row"] for problem in prepared.report["problems"]] == [1, 3, 5, 8, 11]
    assert (prepared.report["records"], prepared.report["skipped"]) == (20, 5)


@pytest.mark.parametrize("bad", range(1, 60))
def test_the_share_that_is_advised_is_enough(bad):
    problems = [Problem("f.json", row, "", "why") for row in range(bad)]
    for total in (60, 100, 61, 97):
        with pytest.raises(BadRecordsError) as caught:
            judge(problems, total, max_bad_fraction=0.0)
        advised = float(re.search(r"--max-bad-fraction (\S+) to", str(caught.value))[1])
        assert judge(problems, total, max_bad_fraction=advised)["skipped"] == bad


def test_fifty_are_shown_and_the_rest_counted(data, ready):
    path = data([{"id": number} for number in range(63)])
    with pytest.raises(BadRecordsError) as caught:
        ready(path, max_bad_fraction=0.9)
    lines = str(caught.value).splitlines()
    assert len(lines) == 52
    assert lines[-1].strip() == "… and 13 more"


@pytest.mark.parametrize("image_cache", ["pixels", "none"])
def test_a_picture_above_the_limit_is_a_bad_record_until_the_limit_is_raised(data, ready, image_cache):
    path = data()
    Image.new("RGB", (4001, 4001), "green").save(path.parent / "pictures" / "1.png")
    with pytest.raises(BadRecordsError, match=r"1\.png: 4001 x 4001 is 16,008,001 pixels.*data\.max_pixels"):
        ready(path, image_cache=image_cache)
    conversations = ready(path, image_cache=image_cache, max_pixels=4001**2).conversations
    number = next(each for each in range(len(conversations)) if conversations.origin(each)[1] == 1)
    pixels = conversations.__getitems__([number])["pixel_values"]
    expected = preprocess(Image.new("RGB", (4001, 4001), "green"), RECIPE)
    np.testing.assert_array_equal(pixels[0], expected)


def test_an_image_lost_after_the_check_is_an_error_and_not_another_image(data, ready):
    path = data()
    conversations = ready(path, image_cache="none").conversations
    (path.parent / "pictures" / "1.png").unlink()
    with pytest.raises(ImageChangedError) as caught:
        conversations.__getitems__([0, 1])
    assert "1.png" in str(caught.value)


def test_a_loading_worker_says_it_in_one_line(data, ready):
    path = data()
    conversations = ready(path, image_cache="none").conversations
    (path.parent / "pictures" / "1.png").write_bytes(b"")
    loader = DataLoader(conversations, batch_sampler=[[0], [1]], collate_fn=as_batch, num_workers=1)
    with pytest.raises(ImageChangedError) as caught:
        list(loader)
    assert str(caught.value).startswith(str(path.parent / "pictures" / "1.png"))
    assert "\n" not in str(caught.value)


def test_batches_hold_every_sample_once_and_like_lengths_together():
    random = np.random.default_rng(1)
    lengths = random.integers(10, 500, 1003)
    epoch = 0
    batches = LengthBatches(lengths, 8, seed=5, epoch=lambda: epoch)
    first = list(batches)
    assert len(first) == len(batches) == 126
    assert sorted(number for batch in first for number in batch) == list(range(1003))
    assert [len(batch) for batch in first] == [8] * 125 + [3]
    padding = sum(len(batch) * lengths[batch].max() for batch in first) / lengths.sum()
    unsorted = sum(8 * lengths[start : start + 8].max() for start in range(0, 1000, 8)) / lengths.sum()
    assert padding < 1.05 < unsorted  # windows of 64 batches leave a few per cent
    assert list(batches) == first
    epoch = 1
    assert list(batches) != first
    assert list(LengthBatches(lengths, 8, seed=6, epoch=lambda: 0)) != first
    # Not a curriculum: long and short batches follow each other.
    means = np.array([lengths[batch].mean() for batch in first])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_fewer_samples_than_a_batch_are_one_batch():
    assert list(LengthBatches(np.array([3, 1]), 8, seed=0, epoch=lambda: 0)) in ([[0, 1]], [[1, 0]])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("samples", [1, 40, 41, 48])
def test_the_ranks_together_take_what_one_would(ranks, samples):
    lengths = np.random.default_rng(2).integers(10, 500, samples)
    batches = LengthBatches(lengths, 4, seed=5, epoch=lambda: 0)
    shares = [RankBatches(batches, rank, ranks) for rank in range(ranks)]
    rounds = list(zip(*shares, strict=True))
    assert {len(share) for share in shares} == {len(rounds)}
    taken = [batch for together in rounds for batch in together]
    whole = list(batches)
    assert taken[: len(whole)] == whole
    for batch in taken[len(whole) :]:  # in the last round, without labels
        assert len(batch) == 1
        assert ~batch[0] in rounds[-1][0]


def test_a_sample_without_its_labels(data, ready):
    conversations = ready(data()).conversations
    batch, bare = conversations.__getitems__([13, 4, 6]), conversations.__getitems__([13, ~4, 6])
    assert (bare["labels"][1] == IGNORED).all()
    assert (batch["labels"][1] != IGNORED).any()
    batch["labels"][1] = IGNORED
    assert all(torch.equal(batch[name], bare[name]) for name in batch)
