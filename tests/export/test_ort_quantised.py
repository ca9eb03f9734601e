"""The CPU's quantised graphs against models in torch that round the same way, and the runtime over two decoders.

The kernels round what enters a product themselves: ``DynamicQuantizeMatMul`` by one scale for all rows of a call,
``MatMulNBits`` by one per row and block. Both are written here once more, in torch; what is left is summing in another
order, and the few codes that this tips over.
"""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_checkpoint import model_to_round, read, relative_error, stored, write_checkpoint

from parrot_export.author import author
from parrot_export.bundle import export
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import plan
from parrot_export.quantise import Rounding, quantised_rows, transposed, transposed_columns
from parrot_export.request import ExportRequest
from parrot_runtime.backends.onnxruntime import OnnxRuntimeBackend
from parrot_runtime.manifest import load_manifest

MAX_LEN = 96


@pytest.fixture(scope="module")
def model():
    return model_to_round()


@pytest.fixture(scope="module")
def source(model, tmp_path_factory):
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("quantised") / "checkpoint", model))


@pytest.fixture(scope="module")
def graphs(source, tmp_path_factory):
    """``graphs(precision)``: the sessions of its graphs, by role."""
    made = {}

    def make(precision):
        if precision not in made:
            authored, folder = author(source, plan(precision), MAX_LEN), tmp_path_factory.mktemp(precision)
            for file in authored.files:
                file.write(folder)
            authored.save_graphs(folder)
            made[precision] = {
                role: onnxruntime.InferenceSession(folder / graph.file, providers=["CPUExecutionProvider"])
                for role, graph in authored.graphs.items()
            }
        return made[precision]

    return make


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def by_channels(weight):
    """int8 with a scale per row."""
    scale = weight.abs().amax(-1, keepdim=True) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def by_blocks(weight):
    """int4 with a scale per 128 or 64 along K."""
    groups = weight.reshape(len(weight), -1, 64 if weight.shape[1] == 192 else 128)
    scale = groups.abs().amax(-1, keepdim=True) / 7
    return ((groups / scale).round().clamp(-7, 7) * scale).reshape(weight.shape)


def rounds_all(rows, seen):
    """uint8 by one scale and zero point, for the rows ``seen`` of a call."""
    low, high = seen.min().clamp(max=0), seen.max().clamp(min=0)
    scale = (high - low) / 255
    zero = (-low / scale).round().clamp(0, 255)
    return ((rows / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def rounds_blocks(rows, _seen):
    """int8 by a scale per row and block."""
    groups = rows.reshape(*rows.shape[:-1], -1, 64 if rows.shape[-1] == 192 else 128)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return ((groups / scale).round() * scale).reshape(rows.shape)


def twin(model, weights, activations):
    """A copy whose language model rounds its weights, and what enters its products.

    In the last layer, behind its attention, the graph goes on with the last position alone: that one is ``seen``.
    """
    rounded = copy.deepcopy(model)
    modules = {f"layers.{name}": module for name, module in rounded.model.language_model.layers.named_modules()}
    modules["lm_head"] = rounded.lm_head
    late = ("layers.2.self_attn.o_proj", "layers.2.mlp", "lm_head")
    for name, module in modules.items():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(weights(module.weight.detach()))
            last = name.startswith(late)
            module.register_forward_pre_hook(
                lambda _module, inputs, last=last: (activations(inputs[0], inputs[0][:, -1:] if last else inputs[0]),)
            )
    return rounded


def call(session, embeds, past=None, start=0):
    """One call of a decoder on ``[1, T, C]`` behind ``start`` positions: its outputs by name."""
    names = [output.name for output in session.get_outputs()]
    if past is None:
        shape = next(each.shape for each in session.get_inputs() if each.name == "past_key_values.0.key")
        past = {name: np.zeros((1, *shape[1:2], MAX_LEN, *shape[3:]), np.float32) for name in names if name != "logits"}
    total = start + embeds.shape[1]
    feed = {name.replace("present", "past_key_values"): array for name, array in past.items()}
    feed |= {"inputs_embeds": embeds, "seqlens_k": np.array([total - 1], np.int32)}
    got = session.run(names, feed | {"total_sequence_length": np.array(total, np.int32)})
    return dict(zip(names, got, strict=True))


@pytest.mark.parametrize(
    ("precision", "weights", "activations"), [("int8", by_channels, rounds_all), ("int4", by_blocks, rounds_blocks)]
)
@pytest.mark.parametrize("length", [33, 1])
def test_the_decoder_rounds_as_its_kernel_does(model, graphs, precision, weights, activations, length):
    embeds = draw(1, length, 128)
    got = call(graphs(precision)["decoder"], embeds)["logits"]
    with torch.no_grad():
        rounded = twin(model, weights, activations)(inputs_embeds=torch.from_numpy(embeds)).logits[0, -1:].numpy()
        plain = model(inputs_embeds=torch.from_numpy(embeds)).logits[0, -1:].numpy()
    assert relative_error(got, rounded) < 5e-3
    assert relative_error(got, plain) > 1e-2  # were nothing rounded, it would be the plain model's


def test_the_graph_for_prompts_writes_the_cache_that_int8s_decoder_writes(graphs):
    """The same kernels on the same weights: bit for bit, in every layer, the last included."""
    embeds = draw(1, 33, 128)
    prompt, whole = call(graphs("int4")["prefill"], embeds), call(graphs("int8")["decoder"], embeds)
    assert set(whole) - set(prompt) == {"logits"}
    for name, array in prompt.items():
        np.testing.assert_array_equal(array[:, :, :33], whole[name][:, :, :33], err_msg=name)


def test_experts_and_encoder_are_near_torchs(model, graphs):
    pixels, text, mask = draw(3, 3, 28, 28), draw(3, 33, 128), np.arange(33) < np.array([[33], [17], [1]])
    with torch.no_grad():
        features = model.get_image_features(torch.from_numpy(pixels))
        visual, routing = model.model.moe(features, torch.from_numpy(text), torch.from_numpy(mask))
    sessions = graphs("int8")
    (got,) = sessions["encoder"].run(None, {"pixel_values": pixels})
    assert relative_error(got, features.numpy()) < 0.05
    feed = {"image_features": features.numpy(), "text_embeds": text, "text_mask": mask}
    mixed, shares = sessions["experts"].run(["visual_tokens", "routing"], feed)
    assert relative_error(mixed, visual.numpy()) < 0.05
    assert relative_error(shares, routing.numpy()) < 2e-3  # never rounded: float16 weights alone


def test_the_runtime_sends_prompts_through_one_decoder_and_steps_through_the_other(source, tmp_path, graphs):
    folder = tmp_path / "bundle"
    export(
        ExportRequest(checkpoint=source.folder, output=folder, precision="int4", target="cpu", verify=False, max_len=96)
    )
    backend = OnnxRuntimeBackend(folder, load_manifest(folder), threads=1)
    embeds = draw(33, 128)
    cache = backend.new_cache(3, MAX_LEN)
    logits = backend.prefill(embeds, cache, slot=2).copy()
    begun = call(graphs("int4")["prefill"], embeds[None, :32])
    ended = call(graphs("int4")["decoder"], embeds[None, 32:], begun, 32)
    assert relative_error(logits, ended["logits"][0]) < 1e-5
    alone = backend.prefill(embeds[:1], backend.new_cache(1, MAX_LEN)).copy()
    step = backend.decode(embeds[:1], np.array([0], np.int32), backend.new_cache(1, MAX_LEN))[0]
    np.testing.assert_array_equal(alone, step)


def test_transposed_codes_are_the_rows_codes_turned(tmp_path, monkeypatch):
    monkeypatch.setattr("parrot_export.slabs.CHUNK_BYTES", 2000)
    monkeypatch.setattr("parrot_export.quantise._TURNED_ROWS", 7)
    tensor = stored(tmp_path, draw(33, 20))
    rounding = Rounding("int8", "float32")
    codes, scales = (read(block) for block in quantised_rows(tensor, rounding))
    turned, same = (read(block) for block in transposed([tensor, tensor], rounding))
    np.testing.assert_array_equal(turned, np.concatenate([codes, codes]).T)
    np.testing.assert_array_equal(same, np.concatenate([scales, scales]))


def test_experts_columns_are_turned_too(tmp_path):
    stack = draw(3, 11, 5)
    codes, scales = (read(block) for block in transposed_columns(stored(tmp_path, stack), Rounding("int8", "float32")))
    beside = stack.transpose(1, 0, 2).reshape(11, 15)
    assert codes.shape == (15, 11)
    np.testing.assert_allclose(codes.T * scales[:, None], beside, atol=scales.max() * 0.51)


def test_codes_of_four_bits_begin_at_eight(tmp_path):
    """``MatMulNBits`` takes codes without a sign, around a zero point of 8."""
    tensor = stored(tmp_path, draw(4, 64))
    signed, unsigned = (read(quantised_rows(tensor, Rounding(kind, "float32", 32))[0]) for kind in ("int4", "uint4"))
    np.testing.assert_array_equal(unsigned, signed ^ 0x88)
