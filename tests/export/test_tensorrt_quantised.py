"""Quantised graphs on onnxruntime against a model in torch whose weights and activations are rounded the same way.

The rounding is written here once more, in torch, with products in float32 on both sides: what is left between the two
is summing in another order, and the few codes of activations that it tips over. A tipped code spoils its own row and no
other, so rows without one agree to the last digits, and a wrong scale, axis or packing is found, which no comparison
with the unrounded model could tell from the rounding itself.
"""

import copy
import dataclasses

import ml_dtypes
import numpy as np
import pytest
import torch
from tensorrt_graphs import DECODING, Graphs, random_feed, ranges_of
from tiny_checkpoint import model_to_round, read, relative_error, stored, write_checkpoint

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import plan
from parrot_export.quantise import Rounding, int4_block, quantised_columns, quantised_rows
from parrot_runtime.errors import ParrotError

LIMITS = {"int8": 127, "int4": 7, "fp8": 448}
LENGTHS = [1, 2, 3, 1, 2, 4, 3]


@pytest.fixture(scope="module")
def model():
    return model_to_round()


@pytest.fixture(scope="module")
def source(model, tmp_path_factory):
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("quantised") / "checkpoint", model))


@pytest.fixture(scope="module")
def ranges(source, tmp_path_factory):
    return ranges_of(source, tmp_path_factory.mktemp("ranges"))


def rounded(numbers: torch.Tensor, scale: torch.Tensor | float, precision: str) -> torch.Tensor:
    limit = LIMITS[precision]
    scaled = (numbers / scale).clamp(-limit, limit)
    return (scaled.to(torch.float8_e4m3fn).float() if precision == "fp8" else scaled.round()) * scale


def rounded_model(model, precision: str, ranges: dict[str, float], scales: torch.dtype):
    """A copy whose decoder rounds its weights, and but for int4 what enters its products, by scales of a type."""
    twin = copy.deepcopy(model)
    for name, module in twin.model.language_model.layers.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        groups = weight = module.weight.detach()
        if precision == "int4":
            groups = weight.reshape(len(weight), -1, 64 if weight.shape[1] == 192 else 128)
        scale = (groups.abs().amax(-1, keepdim=True) / LIMITS[precision]).to(scales).float()
        module.weight = torch.nn.Parameter(rounded(groups, scale, precision).reshape(weight.shape))
        if precision != "int4":
            # Queries, keys and values are one product, of which the range goes by the first.
            shared = name.replace("k_proj", "q_proj").replace("v_proj", "q_proj")
            step = ranges[f"model.language_model.layers.{shared}"] / LIMITS[precision]
            step = float(torch.tensor(step).to(scales))
            module.register_forward_pre_hook(lambda _module, inputs, step=step: (rounded(inputs[0], step, precision),))
    return twin


def decode(graphs: Graphs, dialect: str) -> tuple[np.ndarray, object]:
    """Logits of a step after a ragged prefill, ``[7, V]``, and the decoding that gave them."""
    past = graphs.authored.graphs["decoder"].tensor("past_key_values.0.key")
    decoding = DECODING[dialect](graphs, batch=7, shape=(past.axes[1], 96, past.axes[3]))
    rng = np.random.default_rng(1)
    decoding.step(rng.standard_normal((7, 4, 128)).astype(np.float32), LENGTHS)
    return decoding.step(rng.standard_normal((7, 1, 128)).astype(np.float32), [1] * 7), decoding


def row_errors(got: np.ndarray, expected: np.ndarray) -> list[float]:
    """The largest error of each row as a share of the largest expected value, the smallest first."""
    assert np.isfinite(got).all()
    return sorted(float(error) for error in np.abs(got - expected).max(axis=1) / np.abs(expected).max())


@pytest.mark.parametrize("dialect", list(DECODING))
@pytest.mark.parametrize("precision", ["int8", "int4", "fp8"])
def test_the_decoder_rounds_as_it_should(model, source, ranges, tmp_path, precision, dialect):
    chosen = plan(precision, "tensorrt", dialect)
    exact = {name: dataclasses.replace(part, compute="float32") for name, part in chosen.components.items()}
    exact["lm_head"] = dataclasses.replace(exact["lm_head"], weights="float32")
    chosen = dataclasses.replace(chosen, components=exact)
    logits, decoding = decode(Graphs(author(source, chosen, 96, ranges=ranges), tmp_path), dialect)
    twin = row_errors(logits, decoding.expected(rounded_model(model, precision, ranges, torch.float32)))
    assert twin[len(twin) // 3] < 1e-5  # the same sums in another order
    assert twin[-1] < TIPPED[precision]
    # Were nothing rounded, no row would be far from the plain model's.
    assert row_errors(logits, decoding.expected(model))[0] > 1e-2


# Weights alone have no codes that could tip over. One of an activation takes the codes behind it along, and errs by a
# part of what the rounding itself does, which is up to 0.25 on these random weights.
TIPPED = {"int4": 1e-5, "int8": 0.1, "fp8": 0.1}
# The presets as they are: products in float16 tip over more codes.
HALF = {"int4": 2e-2, "int8": 0.1, "fp8": 0.15}
# Against the unrounded model, whose random weights round worse than trained ones: one layer of experts and two of the
# vision encoder. int4 leaves the encoder alone.
PLAIN = {"int8": 0.1, "int4": 0.3, "fp8": 0.2}


@pytest.mark.parametrize("dialect", list(DECODING))
@pytest.mark.parametrize("precision", ["int8", "int4", "fp8"])
def test_the_presets_compute_what_they_say(model, source, ranges, tmp_path, precision, dialect):
    graphs = Graphs(author(source, plan(precision, "tensorrt", dialect), 96, ranges=ranges), tmp_path)
    logits, decoding = decode(graphs, dialect)
    twin = rounded_model(model, precision, ranges, torch.float16)
    assert relative_error(logits, decoding.expected(twin)) < HALF[precision]
    feeds = {
        role: random_feed(graphs.authored.graphs[role], batch=3, images=3, text=33) for role in ("encoder", "experts")
    }
    with torch.no_grad():
        features = model.get_image_features(torch.from_numpy(feeds["encoder"]["pixel_values"])).numpy()
        visual, routing = model.model.moe(*(torch.from_numpy(array) for array in feeds["experts"].values()))
    assert relative_error(graphs.run("encoder", **feeds["encoder"])["image_features"], features) < PLAIN[precision]
    got = graphs.run("experts", **feeds["experts"])
    assert relative_error(got["visual_tokens"], visual.numpy()) < PLAIN[precision]
    assert relative_error(got["routing"], routing.numpy()) < 2e-3  # never quantised: float16 weights alone


def test_int4_codes_stand_two_to_a_byte_and_chunks_change_nothing(tmp_path, monkeypatch):
    array = np.random.default_rng(0).standard_normal((33, 192)).astype(np.float32)
    tensor = stored(tmp_path, array)
    whole = [read(block) for block in quantised_rows(tensor, Rounding("int4", "float16", 64))]
    monkeypatch.setattr("parrot_export.slabs.CHUNK_BYTES", 2000)
    codes, scales = (read(block) for block in quantised_rows(tensor, Rounding("int4", "float16", 64)))
    np.testing.assert_array_equal(codes, whole[0])
    np.testing.assert_array_equal(scales, whole[1])
    low, high = (codes & 0xF).astype(np.int8), (codes >> 4).astype(np.int8)
    signed = np.stack([low, high], axis=-1).reshape(33, 192)
    signed = np.where(signed > 7, signed - 16, signed)
    steps = np.repeat(scales.astype(np.float64), 64, axis=1)
    # Half a step, and what the peak of a block loses where its scale was rounded down to float16.
    assert (np.abs(signed * steps - array) <= 0.5 * steps + np.abs(array) * 2**-10).all()


def test_experts_columns_have_one_scale_per_output(tmp_path):
    stack = np.random.default_rng(0).standard_normal((3, 33, 5)).astype(np.float32)
    codes, scales = (read(b) for b in quantised_columns(stored(tmp_path, stack), Rounding("int8", "float32")))
    beside = stack.transpose(1, 0, 2).reshape(33, 15)
    np.testing.assert_allclose(scales, np.abs(beside).max(axis=1) / 127, rtol=1e-6)
    np.testing.assert_allclose(codes * scales[:, None], beside, atol=scales.max() * 0.51)


@pytest.mark.parametrize("kind", ["int8", "float8_e4m3fn"])
def test_a_row_of_zeros_stays_zero_and_nan_is_refused(tmp_path, kind):
    array = np.zeros((2, 8), np.float32)
    array[1] = 1e-9  # too small for a float16 scale
    codes, scales = (read(block) for block in quantised_rows(stored(tmp_path, array), Rounding(kind, "float16")))
    assert not codes.astype(np.float32).any()
    assert np.isfinite(scales).all()
    array[1, 3] = np.nan
    with pytest.raises(ParrotError, match="a holds NaN or infinity"):
        read(quantised_rows(stored(tmp_path, array), Rounding(kind, "float16"))[0])


def test_int4_takes_the_largest_block_that_divides():
    assert [int4_block(columns) for columns in (4864, 192, 96, 88)] == [128, 64, 32, None]


def test_where_no_block_divides_the_matrix_stays_whole(exported):
    """The tiny decoder's K are 48, 88 and 96: only o_proj can be rounded."""
    authored = author(exported("paper").checkpoint, plan("int4", "tensorrt"), 96)
    nodes = [node for node in authored.models["decoder"].graph if node.op_type == "DequantizeLinear"]
    assert [node.inputs[0].name.split(".")[-3] for node in nodes] == ["o_proj"] * 3
    assert all(node.inputs[1].const_value.dtype.numpy() == np.float16 for node in nodes)
    assert ml_dtypes.int4 == nodes[0].inputs[0].const_value.dtype.numpy()
