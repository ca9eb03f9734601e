"""The backend against the float64 numpy model: whole sequences, steps over the cache, slots side by side."""

import json

import numpy as np
import onnx
import pytest
from tiny_bundle import DIMS, TinyModel, edit_manifest, softmax, write_bundle

from parrot_runtime.backends.onnxruntime import OnnxRuntimeBackend
from parrot_runtime.errors import BundleError, ParrotError
from parrot_runtime.manifest import load_manifest

# float32 products of widths up to 48 in two layers: errors measured below 2e-5 on logits of up to 20.
CLOSE = {"atol": 1e-4, "rtol": 1e-5}


@pytest.fixture(scope="module")
def backend(bundle):
    return OnnxRuntimeBackend(bundle, load_manifest(bundle), threads=1)


@pytest.fixture
def embeds(model):
    """33 positions, ``[33, C]``."""
    return model["embed"][np.random.default_rng(1).integers(0, 250, 33)].astype(np.float32)


def test_encoder(backend, model):
    pixels = np.random.default_rng(0).standard_normal((3, 3, 28, 28)).astype(np.float32)
    features = backend.encode_images(pixels)
    assert features.shape == (3, 5, 32)
    np.testing.assert_allclose(features, model.encode(pixels), **CLOSE)


def test_experts_are_equations_2_to_5_and_blind_to_padding(backend, model):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 5, 32)).astype(np.float32)
    text = rng.standard_normal((3, 33, 32)).astype(np.float32)
    lengths = [33, 7, 1]
    mask = np.arange(33) < np.array(lengths)[:, None]
    visual, routing = backend.route(features, text, mask)
    for row, length in enumerate(lengths):
        expected, shares = model.mix(features[row].astype(np.float64), text[row, :length].astype(np.float64))
        np.testing.assert_allclose(visual[row], expected, **CLOSE)
        np.testing.assert_allclose(routing[row], shares, **CLOSE)


def test_prefill_and_steps_equal_the_whole_sequence(backend, model, embeds):
    cache = backend.new_cache(1, 64)
    for end in range(20, 34):
        if end == 20:
            logits = backend.prefill(embeds[:20], cache)
        else:
            logits = backend.decode(embeds[end - 1 : end], np.array([end - 1]), cache)[0]
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, model.logits(embeds[:end]), **CLOSE)


def test_prefill_in_chunks_equals_the_whole(backend, embeds):
    whole = backend.prefill(embeds, backend.new_cache(1, 64)).copy()
    cache = backend.new_cache(1, 64)
    backend.prefill(embeds[:10], cache)
    backend.prefill(embeds[10:21], cache, start=10)
    np.testing.assert_allclose(backend.prefill(embeds[21:], cache, start=21), whole, atol=1e-5)


def test_a_used_slot_starts_afresh(backend, embeds):
    clean = backend.prefill(embeds[:9], backend.new_cache(1, 64)).copy()
    cache = backend.new_cache(1, 64)
    backend.prefill(embeds[::-1], cache)
    np.testing.assert_array_equal(backend.prefill(embeds[:9], cache), clean)


def test_rows_of_any_length_decode_together_as_alone(backend, model, embeds):
    """Four slots, the second free: no row hears of another."""
    cache = backend.new_cache(4, 64)
    lengths = np.array([5, 0, 33, 1])
    for slot in (3, 0, 2):
        backend.prefill(embeds[: lengths[slot]], cache, slot=slot)
    sequences = [list(embeds[:length]) for length in lengths]
    for step in range(6):
        new = embeds[[step, step + 1, step + 2, step + 3]]
        logits = backend.decode(new, lengths, cache)
        for slot in (0, 2, 3):
            sequences[slot].append(new[slot])
            np.testing.assert_allclose(logits[slot], model.logits(np.stack(sequences[slot])), **CLOSE)
        lengths = np.where(lengths > 0, lengths + 1, 0)


def test_fewer_rows_than_slots(backend, model, embeds):
    cache = backend.new_cache(3, 64)
    backend.prefill(embeds[:8], cache, slot=0)
    backend.prefill(embeds[:3], cache, slot=1)
    logits = backend.decode(embeds[[8, 3]], np.array([8, 3]), cache)
    assert logits.shape == (2, DIMS.vocab_size)
    np.testing.assert_allclose(logits[0], model.logits(embeds[:9]), **CLOSE)
    np.testing.assert_allclose(logits[1], model.logits(embeds[:4]), **CLOSE)


def test_the_cache_is_written_in_place(backend, embeds):
    cache = backend.new_cache(2, 64)
    backend.prefill(embeds, cache, slot=1)
    for array in cache.arrays:
        assert (array[1, :, :33] != 0).any(axis=(0, 2)).all()
        assert (array[1, :, 33:] == 0).all()
        assert (array[0] == 0).all()


def test_the_cache_fills_to_the_last_position(backend, model, embeds):
    cache = backend.new_cache(1, 33)
    backend.prefill(embeds[:32], cache)
    np.testing.assert_allclose(backend.decode(embeds[32:], np.array([32]), cache)[0], model.logits(embeds), **CLOSE)


def test_half_precision_at_the_borders(model, tmp_path, embeds):
    folder = write_bundle(tmp_path / "half", model, dtype="float16")
    backend = OnnxRuntimeBackend(folder, load_manifest(folder), threads=1)
    assert backend.embeds_dtype == "float16"
    cache = backend.new_cache(1, 64)
    assert {array.dtype.name for array in cache.arrays} == {"float16"}
    backend.prefill(embeds[:20], cache)
    logits = backend.decode(embeds[20:21], np.array([20]), cache)[0]
    assert logits.dtype == np.float32
    # Half precision carries 11 bits through two layers: the distribution over tokens must be the same one.
    assert np.abs(softmax(logits.astype(np.float64)) - softmax(model.logits(embeds[:21]))).max() < 0.02
    features = backend.encode_images(np.ones((1, 3, 28, 28), np.float32))
    np.testing.assert_allclose(features.astype(np.float64), model.encode(np.ones((1, 3, 28, 28))), atol=0.05)


def test_a_model_without_experts_has_no_such_graph(tmp_path):
    import dataclasses

    model = TinyModel(dataclasses.replace(DIMS, experts=0))
    folder = write_bundle(tmp_path / "llava", model)
    backend = OnnxRuntimeBackend(folder, load_manifest(folder), threads=1)
    pixels = np.ones((1, 3, 28, 28), np.float32)
    np.testing.assert_allclose(backend.encode_images(pixels), model.encode(pixels), **CLOSE)


# -- bundles that lie -------------------------------------------------------------------------------------------------


def _refused(folder, message):
    with pytest.raises(BundleError, match=message) as error:
        OnnxRuntimeBackend(folder, load_manifest(folder), threads=1)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not a graph"])
def test_what_is_no_graph_is_refused(copy, content):
    (copy / "llm/decoder.onnx").write_bytes(content)
    edit_manifest(copy)
    _refused(copy, r"decoder\.onnx: onnxruntime cannot load this graph")


def test_an_operator_nobody_knows_is_refused(copy):
    path = copy / "vision_moe/encoder.onnx"
    proto = onnx.load(path)
    proto.graph.node[0].domain = "com.evil"
    proto.opset_import.append(onnx.helper.make_opsetid("com.evil", 1))
    onnx.save(proto, path)
    edit_manifest(copy)
    _refused(copy, r"encoder\.onnx: onnxruntime cannot load this graph")


@pytest.mark.parametrize(
    "pointer",
    [
        {"location": "../outside.bin"},
        {"location": "/etc/hostname"},
        {"location": "missing.bin"},
        {"location": "data.bin", "offset": "-8"},
        {"location": "data.bin", "offset": "99999"},
        {"location": "data.bin", "offset": "100", "length": "4096"},
        {"location": "data.bin", "length": "40960000000"},
    ],
)
def test_data_that_is_not_in_the_bundle_is_refused(copy, pointer):
    (copy / "../outside.bin").write_bytes(b"\0" * 100_000)
    (copy / "vision_moe/data.bin").write_bytes(b"\0" * 4096)
    path = copy / "vision_moe/encoder.onnx"
    proto = onnx.load(path)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "project")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in pointer.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    path.write_bytes(proto.SerializeToString())
    edit_manifest(copy)
    _refused(copy, r"encoder\.onnx: ")


def _manifest_graphs(copy):
    return json.loads((copy / "parrot.json").read_text())["graphs"]


@pytest.mark.parametrize(
    ("role", "side", "change", "message"),
    [
        ("encoder", "inputs", {"dtype": "float16"}, "inputs are not the manifest's: 'pixel_values'"),
        ("encoder", "outputs", {"axes": ["images", "tokens"]}, "outputs are not the manifest's: 'image_features'"),
        ("experts", "inputs", {"name": "features"}, "inputs are not the manifest's"),
        ("encoder", "inputs", {"dtype": "bfloat16"}, "inputs are not the manifest's: 'pixel_values'"),
        ("encoder", "inputs", {"axes": ["images", 4, 28, 28]}, "'pixel_values' is"),
        ("decoder", "outputs", {"name": "scores"}, "'logits' is missing or not expected"),
    ],
)
def test_borders_that_differ_from_the_manifest_are_refused(copy, role, side, change, message):
    graphs = _manifest_graphs(copy)
    graphs[role][side][0].update(change)
    edit_manifest(copy, graphs=graphs)
    _refused(copy, message)


@pytest.mark.parametrize("name", ["hidden_size", "kv_heads", "head_dim", "vocab_size", "experts"])
def test_a_model_of_other_dimensions_than_its_graphs_is_refused(copy, name):
    model = json.loads((copy / "parrot.json").read_text())["model"]
    # As many heads as anything divides.
    edit_manifest(copy, model=model | {"heads": 2**6 * model["heads"], name: 2 * model[name]})
    _refused(copy, "and the manifest's model needs|are not the manifest's|the manifest says")


def test_a_recipe_of_other_pictures_than_the_encoders_is_refused(copy):
    image = json.loads((copy / "parrot.json").read_text())["image"]
    edit_manifest(copy, image=image | {"size": 2 * image["size"]})
    _refused(copy, "'pixel_values' is")


def test_layers_that_no_graph_has_are_refused_at_once(copy):
    model = json.loads((copy / "parrot.json").read_text())["model"]
    edit_manifest(copy, model=model | {"layers": 2**31 - 1})
    _refused(copy, "inputs for 2147483647 layers")


def test_a_kv_dtype_the_decoder_does_not_have_is_refused(copy):
    edit_manifest(copy, kv_dtype="float16")
    _refused(copy, "is not float16, the kv_dtype")


def test_a_graph_that_fails_says_which(backend):
    with pytest.raises(ParrotError, match="the encoder graph failed"):
        backend.encode_images(np.ones((1, 3, 14, 14), np.float32))
    cache = backend.new_cache(1, 4)
    with pytest.raises(ParrotError, match="the decoder graph failed"):
        backend.prefill(np.ones((5, 32), np.float32), cache)
