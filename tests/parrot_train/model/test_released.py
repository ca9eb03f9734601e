"""The released checkpoint format against outputs of the authors' released code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parrot_runtime.errors import InputError
from parrot_train.model.released import load_released

FOLDER = Path(__file__).parents[2] / "data" / "released_tiny"


@pytest.fixture(scope="module")
def model():
    return load_released(FOLDER)


@pytest.fixture(scope="module")
def expected():
    return np.load(FOLDER / "expected.npz")


@pytest.fixture(scope="module")
def inputs(expected):
    stored = expected["input_ids"][0].tolist()
    image = stored.index(-200)
    ids = torch.tensor([[*stored[:image], *[-200] * 17, *stored[image + 1 :]]])
    return ids, torch.from_numpy(expected["pixel_values"])


def test_image_features_mixture_and_logits(model, expected, inputs):
    ids, images = inputs
    features = model.get_image_features(images)
    np.testing.assert_allclose(features.detach(), expected["image_features"], atol=1e-5)
    words = model.model.language_model.embed_tokens(ids.clamp(min=0))
    tokens, _ = model.model.mix(features, ids < 0, words, ids >= 0)
    np.testing.assert_allclose(tokens[0].detach(), expected["moe_output"], atol=1e-5)
    logits = model(ids, pixel_values=images).logits
    np.testing.assert_allclose(logits.detach(), expected["logits"], atol=1e-4)


def test_greedy_tokens(model, inputs):
    ids, images = inputs
    tokens = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=images,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
    )
    assert tokens[0, ids.shape[1] :].tolist() == json.loads((FOLDER / "greedy.json").read_text())["greedy"]


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "checkpoint"))


def test_missing_and_unexpected_tensors_are_all_listed(copy):
    weights = load_file(copy / "model.safetensors")
    for name in ("model.norm.weight", "model.moe_model.experts.3.up_proj.weight"):
        del weights[name]
    weights["model.surprise"] = torch.zeros(1)
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(InputError) as error:
        load_released(copy)
    for name in ("model.norm.weight", "model.moe_model.experts.3.up_proj.weight", "unexpected: model.surprise"):
        assert name in str(error.value)


def test_shards_are_read_as_one(copy, model):
    weights = load_file(copy / "model.safetensors")
    names = sorted(weights)
    (copy / "model.safetensors").unlink()
    save_file({name: weights[name] for name in names[::2]}, copy / "model-00001-of-00002.safetensors")
    save_file({name: weights[name] for name in names[1::2]}, copy / "model-00002-of-00002.safetensors")
    again = load_released(copy).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())


def test_a_vision_tower_that_is_not_there_is_asked_for(copy, tmp_path):
    shutil.move(copy / "clip-vit-tiny", tmp_path / "elsewhere")
    with pytest.raises(InputError, match="--vision-tower"):
        load_released(copy)
    load_released(copy, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"model_type": "llava"}, "expected 'parrot_qwen2'"), ({"mm_projector_type": "linear"}, "mm_projector_type")],
)
def test_another_model_is_refused(copy, change, message):
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_released(copy)
