"""Weight files: sound safetensors, offsets that ONNX can use, bytes untouched, little memory."""

import json
import math
import tracemalloc
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import model_to_round, tiny_config, write_checkpoint, write_hollow_checkpoint

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import plan
from parrot_export.slabs import StoredTensor, read_slabs
from parrot_export.weights import WeightFile, _converted, computed, copied, side_by_side
from parrot_runtime.errors import InputError, ParrotError

LARGE = ("model.language_model.embed_tokens.weight", "model.moe.experts.fc1.weight", "model.moe.experts.fc2.weight")


@pytest.fixture
def stored(tmp_path):
    """A function that puts arrays into a safetensors file and gives them back as stored tensors."""

    def store(**arrays: np.ndarray) -> dict[str, StoredTensor]:
        save_file(arrays, tmp_path / "model.safetensors")
        slabs = dict(read_slabs(tmp_path))
        return {name: StoredTensor(name, slab.dtype, slab.shape, (slab,)) for name, slab in slabs.items()}

    return store


def written(tmp_path, *blocks, **options) -> tuple[WeightFile, bytes]:
    file = WeightFile("weights/x.safetensors")
    file.place(list(blocks), **options)
    file.seal()
    file.write(tmp_path)
    return file, (tmp_path / "weights/x.safetensors").read_bytes()


def draw(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def test_the_file_is_safetensors_and_its_offsets_are_onnxs(stored, tmp_path):
    tensors = stored(a=draw(3, 5), b=draw(7))
    file = WeightFile("weights/x.safetensors")
    regions = {name: file.place([copied(tensors[name], "float32")]) for name in ("b", "a")}
    file.seal()
    file.write(tmp_path)
    raw = (tmp_path / file.location).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    for name, array in load_file(tmp_path / file.location).items():
        offset = regions[name].offset
        assert offset == 8 + int.from_bytes(raw[:8], "little") + header[name]["data_offsets"][0]
        assert raw[offset : offset + regions[name].size] == array.tobytes() == tensors[name].load().tobytes()


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "float32"), (np.float16, "float16")])
def test_what_has_the_wanted_type_is_copied_byte_by_byte(stored, tmp_path, dtype, name):
    array = draw(33, 17, dtype=dtype)
    array.reshape(-1)[-3:] = np.finfo(dtype).max, -0.0, np.finfo(dtype).smallest_subnormal
    _, raw = written(tmp_path, copied(stored(a=array)["a"], name))
    assert raw.endswith(array.tobytes())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_though_nothing_is_converted(dtype, value):
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    chunk = draw(5, 7).astype(kind)
    block = SimpleNamespace(dtype=dtype, name="model.norm")
    assert _converted(chunk, block) is chunk
    chunk[3, 2] = value
    with pytest.raises(ParrotError, match=r"model\.norm holds NaN or infinity"):
        _converted(chunk, block)


def test_bfloat16_becomes_the_wanted_type(tmp_path):
    numbers = draw(5, 7).astype(ml_dtypes.bfloat16)
    text = json.dumps({"a": {"dtype": "BF16", "shape": [5, 7], "data_offsets": [0, 70]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + numbers.tobytes())
    ((name, slab),) = read_slabs(tmp_path)
    written(tmp_path, copied(StoredTensor(name, slab.dtype, slab.shape, (slab,)), "float16"))
    np.testing.assert_array_equal(load_file(tmp_path / "weights/x.safetensors")["a"], numbers.astype(np.float16))


@pytest.mark.parametrize("apart", [False, True])
def test_experts_stand_side_by_side(stored, tmp_path, apart):
    """``[E, C, I]`` to ``[C, E·I]``, from one tensor or from one per expert, against numpy."""
    stack = draw(3, 33, 5)
    tensors = stored(**({f"e{i}": part for i, part in enumerate(stack)} if apart else {"e": stack}))
    slabs = tuple(tensors[name].slabs[0] for name in sorted(tensors))
    tensor = StoredTensor("e", slabs[0].dtype, stack.shape, slabs)
    written(tmp_path, side_by_side(tensor, "float32"))
    got = load_file(tmp_path / "weights/x.safetensors")["e.columns"]
    np.testing.assert_array_equal(got, stack.transpose(1, 0, 2).reshape(33, 15))


def test_chunks_smaller_than_a_tensor_change_nothing(stored, tmp_path, monkeypatch):
    stack = draw(3, 33, 5)
    tensor = stored(e=stack)["e"]
    monkeypatch.setattr("parrot_export.slabs.CHUNK_BYTES", 200)
    assert len(list(tensor.chunks())) > 5
    written(tmp_path, copied(tensor, "float16"), shape=(99, 5))
    np.testing.assert_array_equal(load_file(tmp_path / "weights/x.safetensors")["e"], stack.astype(np.float16))
    columns = np.concatenate(list(tensor.column_chunks()))
    np.testing.assert_array_equal(columns, stack.transpose(1, 0, 2).reshape(-1))


def test_one_region_may_span_several_tensors(stored, tmp_path):
    tensors = stored(q=draw(4, 6), k=draw(2, 6) + 1)
    file, raw = written(tmp_path, copied(tensors["q"], "float32"), copied(tensors["k"], "float32"), shape=(6, 6))
    both = np.concatenate([tensors["q"].load(), tensors["k"].load()])
    assert raw[file.offset("q") :] == both.tobytes()


def test_a_tensor_asked_for_twice_is_written_once(stored):
    tensor, file = stored(a=draw(3, 5))["a"], WeightFile("x")
    first = file.place([copied(tensor, "float32")])
    assert file.place([copied(tensor, "float32")], shape=(5, 3)).first == first.first
    assert file.size == 60
    with pytest.raises(ValueError, match="in another form"):
        file.place([copied(tensor, "float16")])


def test_tensors_that_were_placed_apart_cannot_be_spanned(stored):
    tensors, file = stored(a=draw(3, 5), b=draw(3, 5), c=draw(3, 5)), WeightFile("x")
    blocks = [copied(tensors[name], "float32") for name in "abc"]
    file.place(blocks[:2], shape=(6, 5))
    for apart in ([blocks[1], blocks[0]], [blocks[1], blocks[2]], [blocks[2], blocks[1]]):
        with pytest.raises(ValueError, match="in another form"):
            file.place(apart, shape=(6, 5))
    with pytest.raises(ValueError, match="do not make up"):
        file.place(blocks[:2], shape=(5, 5))


def test_offsets_are_known_once_sealed_and_nothing_comes_later(stored):
    tensors, file = stored(a=draw(3, 5), b=draw(2)), WeightFile("x")
    region = file.place([copied(tensors["a"], "float32")])
    with pytest.raises(ValueError, match="not sealed"):
        _ = region.offset
    file.seal()
    with pytest.raises(ValueError, match="too late"):
        file.place([copied(tensors["b"], "float32")])


def test_a_number_beyond_fp16_is_an_error_and_not_infinity(stored, tmp_path):
    array = draw(3, 5)
    array[1, 2] = -70_000
    with pytest.raises(ParrotError, match=r"a holds 70000, above fp16's 65504; export with --fp32") as caught:
        written(tmp_path, copied(stored(a=array)["a"], "float16"))
    assert caught.value.exit_code == 1


def test_nan_is_an_error_where_it_is_converted(stored, tmp_path):
    array = draw(3, 5)
    array[0, 0] = np.nan
    with pytest.raises(ParrotError, match="a holds NaN or infinity"):
        written(tmp_path, copied(stored(a=array)["a"], "float16"))


def test_a_file_that_shrinks_meanwhile_is_an_error(stored, tmp_path):
    tensor = stored(a=draw(300, 5))["a"]
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="ends before its tensors do"):
        written(tmp_path, copied(tensor, "float32"))


def test_a_table_is_written_as_it_was_calculated(tmp_path):
    table = draw(4, 3)
    written(tmp_path, computed("t", table))
    np.testing.assert_array_equal(load_file(tmp_path / "weights/x.safetensors")["t"], table)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_large_checkpoint_passes_through_little_memory(tmp_path, monkeypatch, precision):
    """60 MiB of weights in pieces of 1 MiB may take 8 MiB: a few pieces and their conversions.

    Reading any of the large tensors whole would take 9 MiB and more: word embeddings, MLP, stacked experts.
    """
    monkeypatch.setattr("parrot_export.slabs.CHUNK_BYTES", 1 << 20)
    large = {"vocab_size": 50_000, "intermediate_size": 50_000, "num_hidden_layers": 1}
    config = tiny_config(text=large, expert_intermediate_size=9_000)
    checkpoint = open_checkpoint(write_hollow_checkpoint(tmp_path / "hollow", config))
    assert min(math.prod(checkpoint.tensors[name].shape) for name in LARGE) * 4 > 9 << 20
    authored = author(checkpoint, plan(precision), 96)
    assert authored.size > (60 << 20) / (2 if precision == "fp16" else 1)
    tracemalloc.start()
    for file in authored.files:
        file.write(tmp_path / "bundle")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_authoring_reads_no_tensor_but_those_of_small_tables(tmp_path, monkeypatch):
    checkpoint = open_checkpoint(write_hollow_checkpoint(tmp_path / "hollow", tiny_config()))
    read, chunks = [], StoredTensor.chunks

    def listening(tensor: StoredTensor):
        read.append(tensor.name.rsplit("embeddings.")[-1])
        return chunks(tensor)

    monkeypatch.setattr(StoredTensor, "chunks", listening)
    author(checkpoint, plan("fp16"), 96)
    assert sorted(read) == ["class_embedding", "position_embedding.weight"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_graphs_say_what_they_read_and_multiply(tmp_path, precision):
    """Against torch's own modules: a product per Linear, and bytes by the type it is computed in."""
    model = model_to_round()
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "checkpoint", model))
    graphs = author(checkpoint, plan(precision), 96).graphs
    language = model.model.language_model
    linear = [module.weight.numel() for module in language.modules() if isinstance(module, torch.nn.Linear)]
    assert graphs["decoder"].multiply_adds == sum(linear)
    vision = [*model.model.vision_tower.modules(), *model.model.multi_modal_projector.modules()]
    # The class token's patches are a convolution; the last layers of the tower are not run.
    used = [module.weight.numel() for module in vision if isinstance(module, torch.nn.Linear)]
    assert 0.5 * sum(used) < graphs["encoder"].multiply_adds <= sum(used)
    # fp16 is float32 arithmetic on a CPU, from weights that were cast when the graph was loaded.
    bits = {"fp32": 32, "fp16": 32, "int8": 8, "int4": 4}[precision]
    head = model.lm_head.weight.numel()
    least = (sum(linear) + head) * bits / 8
    # Norms, biases, scales of four bytes per block or channel, rotary tables.
    assert least < graphs["decoder"].weight_bytes < 1.6 * least
