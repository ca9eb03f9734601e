"""The released checkpoint format against outputs of the authors' released code."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parrot_runtime.errors import InputError
from parrot_train.model.released import find_vision_tower, load_released, read_config

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


def shard(folder: Path) -> None:
    """Every other tensor in another file, and a file beside them that the index does not list."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    index = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(sorted(weights))}
    for file in set(index.values()):
        save_file({name: weights[name] for name in weights if index[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def test_shards_are_read_as_one(copy, model):
    shard(copy)
    shard(copy / "clip-vit-tiny")
    assert same(model, load_released(copy))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"lm_head.weight": "../away.safetensors"}}, "'../away.safetensors' is not a file name"),
        ({"weight_map": ["lm_head.weight"]}, "expected a 'weight_map'"),
        ({"weight_map": {"lm_head.weight": "gone.safetensors"}}, "gone.safetensors: cannot be read"),
        (None, "holds no model.safetensors and no model.safetensors.index.json"),
    ],
)
def test_an_index_that_is_unsound_is_refused(copy, index, message):
    (copy / "model.safetensors").unlink()
    if index:
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        load_released(copy)


def test_a_vision_tower_that_is_not_there_is_asked_for(copy, tmp_path):
    shutil.move(copy / "clip-vit-tiny", tmp_path / "elsewhere")
    with pytest.raises(InputError, match="--vision-tower"):
        load_released(copy)
    load_released(copy, tmp_path / "elsewhere")


@pytest.mark.parametrize("named", [None, "", "./", ".."])
def test_a_checkpoint_that_names_no_vision_tower_is_not_taken_for_one(copy, tmp_path, named):
    tower = shutil.move(copy / "clip-vit-tiny", tmp_path / "elsewhere")
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mm_vision_tower": named}))
    with pytest.raises(InputError, match=r"no folder that it names.*name its folder with --vision-tower"):
        load_released(copy)
    load_released(copy, tower)


@pytest.mark.parametrize("given", [None, "some-lab/clip-vit-tiny"])
def test_a_hub_name_is_found_in_the_cache_and_never_downloaded(copy, tmp_path, monkeypatch, given):
    """The cache laid out as huggingface_hub lays it: a reference to a revision, and the revision's files."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    change(copy, mm_vision_tower="nobody/nothing" if given else "some-lab/clip-vit-tiny")
    repository = tmp_path / "hub" / "models--some-lab--clip-vit-tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789abcdef")
    (repository / "snapshots").mkdir()
    tower = repository / "snapshots" / "0123456789abcdef"
    shutil.move(copy / "clip-vit-tiny", tower)
    assert find_vision_tower(copy, read_config(copy), given) == tower
    load_released(copy, given)
    (tower / "config.json").unlink()
    with pytest.raises(InputError, match="nor in the Hugging Face cache"):
        load_released(copy, given)


def change(folder: Path, **settings) -> None:
    path = folder / "config.json"
    stored = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({name: value for name, value in stored.items() if value is not None}))


def rewrite(folder: Path, edit) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    path.unlink()
    save_file(edit(weights), path)


def same(one, other) -> bool:
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "llava"}, "expected 'parrot_qwen2'"),
        ({"mm_projector_type": "linear"}, "mm_projector_type"),
        ({"moe_hidden_size": 32}, "moe_hidden_size is 32; only 64"),
        ({"moe_weight": None}, "moe_weight is missing"),
    ],
)
def test_another_model_is_refused(copy, settings, message):
    change(copy, **settings)
    with pytest.raises(InputError, match=message):
        load_released(copy)


def test_every_tensor_of_another_shape_is_listed(copy):
    change(copy, moe_intermediate_size=100)
    with pytest.raises(InputError) as error:
        load_released(copy)
    assert "experts.5.up_proj.weight is [128, 64] where config.json asks for [100, 64]" in str(error.value)
    assert str(error.value).count("asks for") == 18


def test_a_cut_file_is_named(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_released(copy)


def test_a_checkpoint_without_its_vision_tower_takes_it_from_the_folder(copy, model):
    rewrite(copy, lambda weights: {name: weight for name, weight in weights.items() if "vision_tower" not in name})
    assert same(model, load_released(copy))


@pytest.mark.parametrize("stored", [True, False])
def test_tied_embeddings_need_no_output_layer(copy, stored):
    change(copy, tie_word_embeddings=True)
    if not stored:
        rewrite(copy, lambda weights: {name: weight for name, weight in weights.items() if name != "lm_head.weight"})
    model = load_released(copy)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_a_checkpoint_without_experts_is_a_llava(copy, inputs):
    change(copy, use_moe=False)
    rewrite(copy, lambda weights: {name: weight for name, weight in weights.items() if "moe_model" not in name})
    ids, images = inputs
    assert load_released(copy)(ids, pixel_values=images).routing is None


def test_without_the_residual_only_the_experts_remain(copy, model, inputs):
    change(copy, use_moe_residual=False)
    ids, images = inputs
    features = model.get_image_features(images)
    words = model.get_input_embeddings()(ids.clamp(min=0))
    whole, bare = (each.model.mix(features, ids < 0, words, ids >= 0)[0] for each in (model, load_released(copy)))
    torch.testing.assert_close(whole - features, bare)


def test_a_chinese_clip_is_a_vision_tower_too(copy, model, inputs):
    """Its layers are CLIP's, so with the same weights and settings the features are the same."""
    path = copy / "clip-vit-tiny" / "config.json"
    tower = {name: value for name, value in json.loads(path.read_text()).items() if name != "model_type"}
    path.write_text(json.dumps({"model_type": "chinese_clip", "vision_config": tower.get("vision_config", tower)}))
    loaded = load_released(copy)
    assert loaded.config.vision_config.model_type == "chinese_clip_vision_model"
    with torch.no_grad():
        features = loaded.get_image_features(inputs[1])
        np.testing.assert_allclose(features, model.get_image_features(inputs[1]), atol=1e-6)
