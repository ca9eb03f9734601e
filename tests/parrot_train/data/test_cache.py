"""Token and image caches: exact contents, reuse, and rebuilding when an input changes."""

import json
import math
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.image import MAX_PIXELS, ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import PromptEncoder
from parrot_train.data import cache, encode
from parrot_train.data.records import parse_records
from parrot_train.data.strings import Paths

IMAGE_TOKENS = 5
RECIPE = ImageRecipe.clip(16)


def open_store(path, backbones, fallback, workers=0):
    return cache.token_store(path, backbones.tokenizer, image_tokens=IMAGE_TOKENS, workers=workers, fallback=fallback)


def test_tokens_are_those_of_the_prompt_encoder(data, backbones, tmp_path):
    path = data()
    store = open_store(path, backbones, tmp_path)
    encoder = PromptEncoder(Tokenizer.from_file(str(backbones.tokenizer)))
    records, _ = parse_records(json.loads(path.read_text()), file="")
    assert len(store) == len(records) == 40
    for number, record in enumerate(records):
        expected = encoder.encode(record.turns, image_tokens=IMAGE_TOKENS)
        inside = slice(store.offsets[number], store.offsets[number + 1])
        np.testing.assert_array_equal(store.tokens[inside], expected.input_ids)
        np.testing.assert_array_equal(store.answers[inside], expected.labels_mask)
        images = store.image_rows[store.image_offsets[number] : store.image_offsets[number + 1]]
        assert tuple(store.images[row] for row in images) == record.images
        assert store.language_codes[store.languages[number]] == record.language
        assert (store.rows[number], store.names[number]) == (number, f"r{number}")


def test_a_system_turn_replaces_the_usual_prompt(data, backbones, tmp_path):
    turns = [{"from": "system", "value": "Kurz."}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    store = open_store(data([{"conversations": turns}]), backbones, tmp_path)
    text = Tokenizer.from_file(str(backbones.tokenizer)).decode(store.tokens.tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\nKurz.<|im_end|>")


def test_the_token_cache_is_used_again_and_follows_the_file(data, backbones, tmp_path, monkeypatch):
    path = data()
    first = open_store(path, backbones, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "build_tokens", lambda *_: pytest.fail("built again"))
        assert open_store(path, backbones, tmp_path).folder == first.folder
    path.write_text(json.dumps(json.loads(path.read_text())[:7]))
    second = open_store(path, backbones, tmp_path)
    assert (len(second), len(first)) == (7, 40)
    assert second.folder != first.folder


def test_a_path_that_means_another_tokenizer_is_read_again(data, backbones, tmp_path, monkeypatch):
    path, stores = data(), []
    for word in ("What", "picture"):
        tokenizer = json.loads(backbones.tokenizer.read_text())
        tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 320, "content": word, "special": False})
        folder = tmp_path / word
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        monkeypatch.chdir(folder)
        stores.append(cache.token_store(path, Path("tokenizer.json"), image_tokens=5, workers=0, fallback=tmp_path))
    assert not np.array_equal(*(store.tokens[: store.offsets[1]] for store in stores))


def test_worker_processes_give_the_same(data, backbones, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "CHUNK", 4)  # ten chunks: above the limit under which no process is started
    path = data()
    alone = open_store(path, backbones, tmp_path)
    os.rename(alone.folder, tmp_path / "moved")
    together = open_store(path, backbones, tmp_path, workers=2)
    for name in ("tokens", "answers", "offsets", "image_rows", "languages"):
        np.testing.assert_array_equal(np.load(tmp_path / "moved" / f"{name}.npy"), getattr(together, name))


def test_problems_are_kept_with_the_cache(data, backbones, tmp_path):
    path = data([{"id": "x", "conversations": []}, {"conversations": [{"from": "human", "value": "a"}] * 2}])
    for _ in range(2):
        store = open_store(path, backbones, tmp_path)
        assert [(problem.row, problem.name) for problem in store.problems] == [(0, "x"), (1, "")]
        assert len(store) == 0


def test_a_folder_that_cannot_be_written_sends_the_cache_elsewhere(data, backbones, tmp_path, monkeypatch):
    path = data()
    monkeypatch.setattr(cache.os, "access", lambda folder, mode: folder != path.parent)
    assert open_store(path, backbones, tmp_path / "run").folder.is_relative_to(tmp_path / "run")


def test_another_users_cache_sends_ours_elsewhere(data, backbones, tmp_path, monkeypatch):
    """In a folder that all may write to."""
    path = data()
    (path.parent / cache.FOLDER).mkdir()
    monkeypatch.setattr(cache.os, "access", lambda folder, mode: folder != path.parent / cache.FOLDER)
    assert open_store(path, backbones, tmp_path / "run").folder.is_relative_to(tmp_path / "run")


def test_a_missing_file_is_one_line(backbones, tmp_path):
    with pytest.raises(InputError, match=r"none\.json: there is no such file"):
        open_store(tmp_path / "none.json", backbones, tmp_path)


def images(store, path, keep=True, max_pixels=MAX_PIXELS):
    paths = Paths(path.parent, store.images)
    return cache.image_store(store.folder, paths, RECIPE, keep_pixels=keep, max_pixels=max_pixels, workers=0)


def test_cached_pixels_are_the_bytes_before_normalising(data, backbones, tmp_path):
    path = data()
    store = open_store(path, backbones, tmp_path)
    found = images(store, path)
    assert found.bad == {}
    for row, name in enumerate(store.images):
        expected = preprocess(read_image(path.parent / name), RECIPE)
        mean, std = (np.array(value).reshape(3, 1, 1) for value in (RECIPE.mean, RECIPE.std))
        # float64 from the bytes, then one rounding to float32: bit-equal, so no tolerance.
        np.testing.assert_array_equal(((found.pixels[row] / 255.0 - mean) / std).astype(np.float32), expected)


@pytest.mark.parametrize("keep", [True, False])
def test_images_are_decoded_once_and_again_after_a_change(data, backbones, tmp_path, monkeypatch, keep):
    path = data()
    store = open_store(path, backbones, tmp_path)
    picture = path.parent / store.images[2]
    whole = picture.read_bytes()
    first = images(store, path, keep)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_decode_all", lambda *_: pytest.fail("decoded again"))
        assert images(store, path, keep).bad == first.bad == {}
    picture.write_bytes(whole[:50])
    broken = images(store, path, keep)
    assert list(broken.bad) == [2]
    assert str(picture) in broken.bad[2]
    assert images(store, path, keep).bad == broken.bad
    picture.unlink()
    assert "no such" in images(store, path, keep).bad[2]
    picture.write_bytes(whole)
    assert images(store, path, keep).bad == {}


@pytest.mark.parametrize("keep", [True, False])
def test_another_limit_is_another_check(data, backbones, tmp_path, keep):
    path = data()
    store = open_store(path, backbones, tmp_path)
    sizes = [math.prod(read_image(path.parent / name).size) for name in store.images]
    size = max(sizes)
    assert images(store, path, keep, max_pixels=size).bad == {}
    refused = images(store, path, keep, max_pixels=size - 1).bad
    assert list(refused) == [row for row, each in enumerate(sizes) if each == size]
    assert all(f"the limit is {size - 1:,}" in reason for reason in refused.values())
    assert images(store, path, keep, max_pixels=size).bad == {}


def test_a_check_without_pixels_does_not_pass_for_a_pixel_cache(data, backbones, tmp_path):
    path = data()
    store = open_store(path, backbones, tmp_path)
    assert images(store, path, keep=False).pixels is None
    assert images(store, path).pixels.shape == (8, 3, 16, 16)


def test_text_only_data_has_an_empty_pixel_cache(data, backbones, tmp_path):
    path = data([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}])
    store = open_store(path, backbones, tmp_path)
    assert images(store, path).pixels.shape == (0, 3, 16, 16)


def test_a_disk_without_room_for_pixels_is_told(data, backbones, tmp_path):
    path = data()
    store = open_store(path, backbones, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(ParrotError, match=r"bytes for the pictures' pixels cannot be had .*image_cache=none"):
            images(store, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(store.folder.glob("*.partial"))


def test_what_a_killed_process_left_is_removed(data, backbones, tmp_path):
    store = open_store(data(), backbones, tmp_path)
    images(store, data())
    (array,) = store.folder.glob("pixels-*.npy")
    left = array.with_suffix(".4194305.partial")
    left.write_bytes(b"half")
    array.unlink()
    images(store, data())
    assert array.is_file()
    assert not left.exists()
