"""The released format, from its files to tokens, against outputs that the released code computed."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoint import relative_error, sessions, tiny_tokenizer

from parrot_export.checkpoint import open_checkpoint
from parrot_runtime.errors import InputError
from parrot_runtime.image import ImageRecipe

RELEASED = Path(__file__).parents[1] / "data" / "released_tiny"
IMAGE = -200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The reference checkpoint with a tokenizer beside it, which it does not bring."""
    folder = tmp_path_factory.mktemp("released") / "tiny"
    shutil.copytree(RELEASED, folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def graphs(folder, tmp_path_factory):
    return sessions(open_checkpoint(folder), tmp_path_factory.mktemp("released-graphs") / "fp32", "fp32")


@pytest.fixture(scope="module")
def expected():
    return np.load(RELEASED / "expected.npz")


def test_one_that_deepspeed_saved_in_parts_is_the_same(folder, tmp_path):
    """Two ranks of ZeRO 3, as training code beside the released one leaves them: no model.safetensors."""
    parts = shutil.copytree(folder, tmp_path / "parts")
    stored = load_file(parts / "model.safetensors")
    (parts / "model.safetensors").unlink()
    (parts / "latest").write_text("step")
    (parts / "step").mkdir()
    model = {
        "param_shapes": [OrderedDict((name, tensor.shape) for name, tensor in stored.items())],
        "shared_params": {},
    }
    for rank in range(2):
        flat = torch.cat([_half(tensor, rank) for tensor in stored.values()])
        optimizer = {"fp32_flat_groups": [flat], "partition_count": 2}
        torch.save(model, parts / "step" / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        file = parts / "step" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": optimizer}, file)
    whole, again = open_checkpoint(folder), open_checkpoint(parts)
    assert whole.tensors.keys() == again.tensors.keys()
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].load(), tensor.load(), err_msg=name)
    one, other = whole.load_model().state_dict(), again.load_model().state_dict()
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def _half(tensor, rank):
    """A rank's share of two, the last number of an odd tensor with a zero behind it."""
    size = -(-tensor.numel() // 2)
    return torch.nn.functional.pad(tensor.flatten(), (0, 1))[rank * size : (rank + 1) * size].clone()


def embeddings(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")["model.embed_tokens.weight"]


# float32 sums in another order: the bounds are ten times what is usual for so shallow a model.
def test_image_features_are_those_of_the_released_code(graphs, expected):
    (features,) = graphs["encoder"].run(None, {"pixel_values": expected["pixel_values"]})
    np.testing.assert_allclose(features, expected["image_features"], atol=1e-5)


def test_visual_tokens_are_those_of_the_released_code(graphs, folder, expected):
    text = embeddings(folder)[expected["input_ids"][0][expected["input_ids"][0] != IMAGE]][None]
    feed = {"image_features": expected["image_features"], "text_embeds": text, "text_mask": np.ones((1, 23), bool)}
    visual, _ = graphs["experts"].run(None, feed)
    np.testing.assert_allclose(visual[0], expected["moe_output"], atol=1e-5)


def test_logits_and_greedy_tokens_are_those_of_the_released_code(graphs, folder, expected):
    table, ids = embeddings(folder), expected["input_ids"][0]
    at = int(np.flatnonzero(ids == IMAGE)[0])
    embeds = np.concatenate([table[ids[:at]], expected["moe_output"], table[ids[at + 1 :]]])[None]
    cache = {
        f"past_key_values.{n}.{part}": np.zeros((1, 4, 96, 16), np.float32)
        for n in range(3)
        for part in ("key", "value")
    }
    names = [output.name for output in graphs["decoder"].get_outputs()]
    length, tokens = 0, []
    while len(tokens) < 12:
        length += embeds.shape[1]
        feed = {"seqlens_k": np.array([length - 1], np.int32), "total_sequence_length": np.array(length, np.int32)}
        got = dict(zip(names, graphs["decoder"].run(None, {"inputs_embeds": embeds, **feed, **cache}), strict=True))
        if not tokens:
            assert relative_error(got["logits"], expected["logits"][:, -1]) < 1e-5
        tokens.append(int(got["logits"].argmax()))
        cache = {name: got[name.replace("past_key_values", "present")] for name in cache}
        embeds = table[tokens[-1]][None, None]
    assert tokens == json.loads((RELEASED / "greedy.json").read_text())["greedy"]


def test_its_recipe_is_the_papers_at_its_size(folder):
    assert open_checkpoint(folder).recipe.image == ImageRecipe.clip(28)


def test_a_missing_expert_is_named(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    broken = shutil.copytree(folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.moe_model.experts.3.up_proj.weight"]
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(InputError, match=r"missing: model\.moe_model\.experts\.3\.up_proj\.weight"):
        open_checkpoint(broken)


def test_a_vision_tower_elsewhere_is_found_when_it_is_named(folder, tmp_path):
    apart = shutil.copytree(folder, tmp_path / "apart")
    shutil.move(apart / "clip-vit-tiny", tmp_path / "towers")
    with pytest.raises(InputError, match="--vision-tower"):
        open_checkpoint(apart)
    assert open_checkpoint(apart, tmp_path / "towers").architecture.vision.image_size == 28


def test_a_checkpoint_without_its_vision_tower_takes_the_folders(folder, tmp_path):
    """Saved without the frozen tower and in shards, the tower in a folder that must be named: the same tensors."""
    from safetensors.numpy import load_file, save_file

    whole = open_checkpoint(folder)
    apart = shutil.copytree(folder, tmp_path / "apart")
    weights = load_file(apart / "model.safetensors")
    (apart / "model.safetensors").unlink()
    prefix = "model.vision_tower.vision_tower."
    tower = {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}
    index = {name: f"{number % 3}.safetensors" for number, name in enumerate(weights)}
    for file in set(index.values()):
        save_file({name: weights[name] for name in weights if index[name] == file}, apart / file)
    (apart / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    away = shutil.move(apart / "clip-vit-tiny", tmp_path / "tower")
    # The text side of a whole CLIP stands in such a folder too.
    text = {"text_model.embeddings.token_embedding.weight": np.zeros((3, 4), np.float32)}
    save_file(tower | text, away / "model.safetensors")
    opened = open_checkpoint(apart, away)
    assert opened.tensors.keys() == whole.tensors.keys()
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(opened.tensors[name].load(), tensor.load())
    model = opened.load_model()
    weight = model.model.vision_tower.embeddings.patch_embedding.weight.detach()
    np.testing.assert_array_equal(weight, tower["vision_model.embeddings.patch_embedding.weight"])
