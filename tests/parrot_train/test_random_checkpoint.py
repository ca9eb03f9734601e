"""Checkpoints of random weights are what the trainer would have written, tensor by tensor."""

import json

import pytest
import torch
from click.testing import CliRunner

from parrot_export.checkpoint import open_checkpoint
from parrot_runtime.errors import InputError
from parrot_train.checkpoint import load_checkpoint
from parrot_train.cli import main
from parrot_train.random_checkpoint import tensors, write_random_checkpoint
from tests.export.tiny_checkpoint import tiny_config

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("tied", [False, True])
def test_it_is_a_whole_checkpoint(tmp_path, dtype, tied):
    config = tiny_config(text={"vocab_size": 1600}, tie_word_embeddings=tied)
    size = write_random_checkpoint(config, tmp_path / "c", dtype=dtype, seed=3)
    assert size == sum(tensor.nbytes for tensor in tensors(config, dtype).values())
    stored = open_checkpoint(tmp_path / "c").tensors
    model = load_checkpoint(tmp_path / "c")
    weights = model.state_dict()
    for name, tensor in stored.items():
        assert str(tensor.dtype) == {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[dtype]
        loaded = weights[name.replace("vision_tower.vision_model.", "vision_tower.")]
        assert torch.equal(torch.from_numpy(tensor.load()), loaded)
    matrix = weights["model.language_model.layers.0.mlp.up_proj.weight"]
    assert 0.8 < matrix.std() / config.text_config.initializer_range < 1.2
    assert torch.equal(weights["model.language_model.norm.weight"], torch.ones(48))


def test_shards_and_seeds(tmp_path):
    config = tiny_config(text={"vocab_size": 1600})
    for name, seed, shard in (("whole", 1, 1 << 30), ("sharded", 1, 100_000), ("other", 2, 100_000)):
        write_random_checkpoint(config, tmp_path / name, seed=seed, shard_bytes=shard)
    files = sorted(path.name for path in (tmp_path / "sharded").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    whole, sharded, other = (
        {name: tensor.load() for name, tensor in open_checkpoint(tmp_path / each).tensors.items()}
        for each in ("whole", "sharded", "other")
    )
    assert all((whole[name] == sharded[name]).all() for name in whole)
    assert any((whole[name] != other[name]).any() for name in whole)


def test_nothing_is_replaced_unasked(tmp_path):
    config = tiny_config(text={"vocab_size": 1600})
    write_random_checkpoint(config, tmp_path / "c")
    with pytest.raises(InputError, match="exists already"):
        write_random_checkpoint(config, tmp_path / "c")
    write_random_checkpoint(config, tmp_path / "c", seed=1, force=True)


def test_the_command(tmp_path):
    done = CliRunner().invoke(main, ["random", "nano", "-o", str(tmp_path / "c"), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["checkpoint"] == str(tmp_path / "c")
    assert open_checkpoint(tmp_path / "c").architecture.decoder.layers == 5
