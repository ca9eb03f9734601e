"""Checkpoints: what is read, what is refused, and in which words."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import write_checkpoint

from parrot_export.checkpoint import open_checkpoint
from parrot_export.description import model_dims
from parrot_runtime.errors import InputError


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def change_weights(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_a_checkpoint_is_its_model(checkpoint, model):
    opened = open_checkpoint(checkpoint)
    state = model.state_dict()
    for name in ("model.moe.experts.fc2.weight", "model.language_model.layers.2.mlp.up_proj.weight", "lm_head.weight"):
        np.testing.assert_array_equal(opened.tensors[name].load(), state[name].numpy())
    assert opened.architecture.decoder.rope_theta == 12345.0
    assert opened.architecture.vision.layers_used == 2


def test_shards_are_read_as_one_file_is(checkpoint, model, tmp_path):
    sharded = write_checkpoint(tmp_path / "sharded", model, max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    whole, parts = open_checkpoint(checkpoint), open_checkpoint(sharded)
    assert whole.tensors.keys() == parts.tensors.keys()
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(tensor.load(), parts.tensors[name].load())
    loaded = parts.load_model().state_dict()
    for name, weight in model.state_dict().items():
        np.testing.assert_array_equal(loaded[name].numpy(), weight.numpy())


@pytest.mark.parametrize("inside", [True, False])
def test_both_spellings_of_the_vision_tower_are_read(copy, inside):
    def respell(weights):
        for name in [name for name in weights if name.startswith("model.vision_tower.")]:
            rest = name.removeprefix("model.vision_tower.").removeprefix("vision_model.")
            weights[f"model.vision_tower.{'vision_model.' * inside}{rest}"] = weights.pop(name)

    change_weights(copy, respell)
    assert "model.vision_tower.vision_model.pre_layrnorm.weight" in open_checkpoint(copy).tensors


def test_rope_theta_is_read_where_older_configurations_have_it(copy):
    path = copy / "config.json"
    config = json.loads(path.read_text("utf-8"))
    del config["text_config"]["rope_parameters"]
    config["text_config"]["rope_theta"] = 777.0
    path.write_text(json.dumps(config), "utf-8")
    assert open_checkpoint(copy).architecture.decoder.rope_theta == 777.0


def test_a_missing_tensor_is_named(copy):
    change_weights(copy, lambda weights: weights.pop("model.moe.router.weight"))
    assert "model.moe.router.weight is missing" in refusal(copy)


def test_a_tensor_of_another_shape_is_named_with_both(copy):
    def cut(weights):
        weights["model.moe.router.weight"] = weights["model.moe.router.weight"][:, :40].copy()

    change_weights(copy, cut)
    assert "model.moe.router.weight is [5, 40] where config.json asks for [5, 48]" in refusal(copy)


def test_an_unexpected_tensor_is_named(copy):
    # A query norm would change every answer: leaving it out silently would export another model.
    extra = "model.language_model.layers.0.self_attn.q_norm.weight"
    change_weights(copy, lambda weights: weights.update({extra: np.ones(16, np.float32)}))
    assert f"{extra} is unexpected" in refusal(copy)


def test_many_faults_are_still_one_line(copy):
    change_weights(copy, lambda weights: [weights.pop(name) for name in list(weights)[:20]])
    assert "(and 12 more)" in refusal(copy)


@pytest.mark.parametrize("keep", [0, 7, 300, 50_000])
def test_a_cut_file_is_refused_by_name(copy, keep):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors: not a sound safetensors file" in refusal(copy)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}, "12 bytes for [4] of F32"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}, "bytes for [4] of F32"),
        ({"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}, "whole numbers"),
        ({"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}, "I64; expected one of"),
        ({"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}, "beyond the end of the file"),
        ({"dtype": "F32", "shape": [4]}, "data_offsets"),
        ([], "not a sound safetensors file"),
    ],
)
def test_a_malformed_header_is_refused(copy, entry, complaint):
    text = json.dumps({"lm_head.weight": entry}).encode()
    (copy / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    assert complaint in refusal(copy)


def test_an_index_cannot_lead_out_of_the_checkpoint(copy):
    (copy / "model.safetensors").rename(copy.parent / "outside.safetensors")
    index = {"weight_map": {"lm_head.weight": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert "'../outside.safetensors' is not a file name inside the checkpoint" in refusal(copy)


def test_a_shard_that_lacks_what_the_index_promises(copy):
    (copy / "model.safetensors").rename(copy / "a.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}), "utf-8")
    assert "x is missing, which model.safetensors.index.json promises" in refusal(copy)


def test_other_models_are_refused(copy):
    change_json(copy / "config.json", model_type="idefics")
    assert "model_type is 'idefics'; expected one of 'parrot' (written by parrot-train), 'parrot_qwen2'" in refusal(
        copy
    )


def test_a_configuration_that_makes_no_sense_is_refused(copy):
    change_json(copy / "config.json", vision_feature_layer=-9)
    assert "vision_feature_layer" in refusal(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": []},
        {"alpha": float("nan")},
        {"dtype": "float99"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"vision_config": {"patch_size": 0}},
        {"text_config": {"max_position_embeddings": 5}},
        {"text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": "a"}}},
    ],
    ids=str,
)
def test_odd_values_in_a_configuration_are_one_line(copy, change):
    config = json.loads((copy / "config.json").read_text())
    for name, value in change.items():
        config[name] = config[name] | value if name.endswith(("vision_config", "text_config")) else value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: ") as caught:
        model_dims(open_checkpoint(copy), 5 if "text_config" in change else 200)
    assert "\n" not in str(caught.value)


def test_a_configuration_without_end_is_one_line(copy):
    (copy / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        open_checkpoint(copy)


@pytest.mark.parametrize("training", [[1], "x", {"settings": [1]}, {"settings": {"data": 5}}])
def test_a_recipe_whose_training_is_no_object_is_refused(copy, training):
    recipe = json.loads((copy / "parrot_recipe.json").read_text())
    (copy / "parrot_recipe.json").write_text(json.dumps(recipe | {"training": training}))
    with pytest.raises(InputError, match="no JSON objects"):
        open_checkpoint(copy)


def test_rotary_embeddings_that_are_not_plain_are_refused(copy):
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["text_config"]["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    assert "rope_type 'linear' cannot be exported" in refusal(copy)


def test_sliding_windows_are_refused(copy):
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["text_config"] |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    del config["text_config"]["layer_types"]
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    assert "sliding-window attention cannot be exported" in refusal(copy)


def test_a_recipe_for_pictures_of_another_size_is_refused(copy):
    recipe = json.loads((copy / "parrot_recipe.json").read_text("utf-8"))
    change_json(copy / "parrot_recipe.json", image=recipe["image"] | {"size": 56})
    assert "pictures of 56 pixels for a vision encoder of 28" in refusal(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "parrot_recipe.json", "tokenizer.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert name in refusal(copy)


def test_a_tokenizer_without_control_tokens_is_refused(copy):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text("utf-8").replace("<|im_end|>", "<|other|>"), "utf-8")
    assert "<|im_end|>" in refusal(copy)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(copy):
    path = copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    tokenizer["model"]["vocab"] |= {f"extra{number}": 259 + number for number in range(40)}
    path.write_text(json.dumps(tokenizer), "utf-8")
    assert "tokens for a model of 271" in refusal(copy)


def test_a_folder_that_is_not_there(tmp_path):
    assert "there is no such checkpoint folder" in refusal(tmp_path / "nowhere")
