"""TensorRT's two dialects: the very graphs that TensorRT reads, run without it, against the model in torch.

float32 and float16 run on onnxruntime's CPU provider, which rounds between operators as the graph says. It has no
bfloat16 products, so those run on onnx's reference evaluator, operator by operator as the standard defines them.
"""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from tensorrt_graphs import CACHE, DECODING, Graphs
from tiny_checkpoint import IMAGE_TOKENS, MAX_LEN, WIDTH, relative_error, tiny_model, write_checkpoint

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import plan
from parrot_runtime.manifest import EMBEDDING_NAME

DIALECTS = list(DECODING)
# float32: the same sums in another order, and another formula of the attention. The others: operands of products are
# rounded to 11 or 8 bits, 5e-4 or 4e-3 each, and this model's random weights carry that through five layers.
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-2, "bf16": 0.1}
LENGTHS = [33, 17, 5]


@pytest.fixture(scope="module")
def written(exported, tmp_path_factory):
    """``written(form, precision, dialect)``: the model in torch and its graphs."""
    made = {}

    def write(form: str, precision: str, dialect: str):
        key = (form, precision, dialect)
        if key not in made:
            tiny = exported(form)
            authored = author(tiny.checkpoint, plan(precision, "tensorrt", dialect), MAX_LEN)
            made[key] = tiny, Graphs(authored, tmp_path_factory.mktemp("-".join(key)), reference=precision == "bf16")
        return made[key]

    return write


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


CASES = [(form, "fp32") for form in ("paper", "released", "llava")] + [("paper", "fp16"), ("paper", "bf16")]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("form", "precision"), CASES)
def test_ragged_prefill_and_decode_are_torchs(written, form, precision, dialect):
    """Batch 3 of 33, 17 and 5, padded on the right, then four steps of one token each."""
    tiny, graphs = written(form, precision, dialect)
    decoding = DECODING[dialect](graphs, batch=3)
    logits = decoding.step(draw(3, 33, WIDTH), LENGTHS)
    assert relative_error(logits, decoding.expected(tiny.model)) < TOLERANCE[precision]
    for number in range(4):
        logits = decoding.step(draw(3, 1, WIDTH) + number, [1, 1, 1])
        assert relative_error(logits, decoding.expected(tiny.model)) < TOLERANCE[precision]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("form", "precision"), CASES)
def test_features_visual_tokens_and_routing_are_torchs(written, form, precision, dialect):
    tiny, graphs = written(form, precision, dialect)
    pixels = draw(3, 3, 28, 28)
    with torch.no_grad():
        expected = tiny.model.get_image_features(torch.from_numpy(pixels)).numpy()
    assert relative_error(graphs.run("encoder", pixel_values=pixels)["image_features"], expected) < TOLERANCE[precision]
    if form == "llava":
        return
    features, text = draw(3, IMAGE_TOKENS, WIDTH), draw(3, 33, WIDTH)
    mask = np.arange(33)[None] < np.array(LENGTHS)[:, None]
    with torch.no_grad():
        visual, routing = tiny.model.model.moe(*(torch.from_numpy(array) for array in (features, text, mask)))
    got = graphs.run("experts", image_features=features, text_embeds=text, text_mask=mask)
    assert relative_error(got["visual_tokens"], visual.numpy()) < TOLERANCE[precision]
    assert relative_error(got["routing"], routing.numpy()) < TOLERANCE[precision]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_prompt_in_chunks_is_the_whole_prompt(written, dialect):
    """Rows of unequal chunks, behind unequal pasts."""
    tiny, graphs = written("paper", "fp32", dialect)
    decoding = DECODING[dialect](graphs, batch=3)
    decoding.step(draw(3, 20, WIDTH), [20, 3, 11])
    logits = decoding.step(draw(3, 13, WIDTH), [2, 13, 6])
    assert relative_error(logits, decoding.expected(tiny.model)) < TOLERANCE["fp32"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_positions_reach_the_end_of_the_cache(written, dialect):
    """All ``max_len`` positions, the last of them by a step of its own."""
    tiny, graphs = written("paper", "fp32", dialect)
    decoding = DECODING[dialect](graphs, batch=1)
    decoding.step(draw(1, MAX_LEN - 1, WIDTH), [MAX_LEN - 1])
    logits = decoding.step(draw(1, 1, WIDTH), [1])
    assert relative_error(logits, decoding.expected(tiny.model)) < TOLERANCE["fp32"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_ort_dialect_computes_the_same(written, dialect):
    tiny, graphs = written("released", "fp32", dialect)
    pixels, embeds = draw(3, 3, 28, 28), draw(3, 33, WIDTH)
    theirs = tiny.run("encoder", pixel_values=pixels)["image_features"]
    assert relative_error(graphs.run("encoder", pixel_values=pixels)["image_features"], theirs) < TOLERANCE["fp32"]
    past = {f"past_key_values.{name}": np.zeros((3, 2, MAX_LEN, 16), np.float32) for name in CACHE}
    controls = {"seqlens_k": np.array(LENGTHS, np.int32) - 1, "total_sequence_length": np.array(33, np.int32)}
    theirs = tiny.run("decoder", inputs_embeds=embeds, **controls, **past)["logits"]
    ours = DECODING[dialect](graphs, batch=3).step(embeds, LENGTHS)
    assert relative_error(ours, theirs) < TOLERANCE["fp32"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_padding_does_not_matter(written, dialect):
    """Huge numbers in the padding of a prompt change no bit, then or later."""
    _, graphs = written("paper", "fp32", dialect)
    embeds = draw(3, 33, WIDTH)
    other = np.where(np.arange(33)[None, :, None] < np.array(LENGTHS)[:, None, None], embeds, np.float32(1e3))
    first, second = (DECODING[dialect](graphs, batch=3) for _ in range(2))
    np.testing.assert_array_equal(first.step(embeds, LENGTHS), second.step(other, LENGTHS))
    step = draw(3, 1, WIDTH)
    np.testing.assert_array_equal(first.step(step, [1, 1, 1]), second.step(step, [1, 1, 1]))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_residual_stream_beyond_float16_stays_whole(tmp_path, dialect):
    """Two MLPs that each add 50,000 to one channel: 100,000 in the stream, and one product alone of 80,000."""
    model = tiny_model(num_experts=0)
    with torch.no_grad():
        for layer, amount in zip(model.model.language_model.layers, (5e4, 5e4, 8e4), strict=True):
            # gate and up are 16 in one hidden unit for any input along a direction all inputs of this test share.
            for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
                projection.weight[0] = 0
                projection.weight[0, 0] = 16 / layer.post_attention_layernorm.weight[0]
            layer.mlp.down_proj.weight[:, 0] = 0
            layer.mlp.down_proj.weight[1, 0] = amount / 256
        model.model.language_model.norm.weight[1] = 1e-3
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "checkpoint", model))
    graphs = Graphs(author(checkpoint, plan("fp16", "tensorrt", dialect), MAX_LEN), tmp_path / "graphs")
    decoding = DECODING[dialect](graphs, batch=3)
    embeds = draw(3, 33, WIDTH)
    embeds[:, :, 0] = 30.0
    seen = []
    for layer in model.model.language_model.layers:
        layer.mlp.down_proj.register_forward_hook(lambda _m, _i, output: seen.append(float(output.abs().max())))
    logits, expected = decoding.step(embeds, LENGTHS), decoding.expected(model)
    assert max(seen) > 65504  # float16's largest number: without one beyond it this test would show nothing
    assert relative_error(logits, expected) < TOLERANCE["fp16"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_graphs_are_standard_and_every_input_is_read(written, precision, dialect):
    _, graphs = written("paper", precision, dialect)
    for role, graph in graphs.authored.graphs.items():
        onnx.checker.check_model(graphs.path(role), full_check=True)
        model = onnx.load(graphs.path(role), load_external_data=False)
        assert {node.domain for node in model.graph.node} == {""}
        read = {name for node in model.graph.node for name in node.input}
        assert {tensor.name for tensor in graph.inputs} <= read
        assert [opset.version for opset in model.opset_import] == [24 if dialect == "tensorrt-modern" else 19]


def test_half_precision_is_in_products_and_the_cache_alone(written):
    _, graphs = written("paper", "bf16", "tensorrt-modern")
    borders = {t.name: t.dtype for graph in graphs.authored.graphs.values() for t in (*graph.inputs, *graph.outputs)}
    narrow = {name for name, dtype in borders.items() if dtype == "bfloat16"}
    assert narrow == {f"{kind}.{name}" for kind in ("past_key_values", "present") for name in CACHE}
    for model in graphs.authored.models.values():
        for node in model.graph:
            if node.op_type in ("RMSNormalization", "LayerNormalization", "Softmax", "Add", "Mul"):
                assert node.inputs[0].dtype.numpy() in (np.float32, np.int64)


def test_a_second_dialect_reads_the_files_of_the_first(checkpoint, tmp_path):
    """float16 weights stand in one place for both; what is computed from them is what it is without sharing."""
    source = open_checkpoint(checkpoint)
    first = author(source, plan("fp16", "cpu"), MAX_LEN)
    second = author(source, plan("fp16", "tensorrt"), MAX_LEN, beside=first)
    assert not second.files
    assert {graph.file for graph in second.graphs.values()}.isdisjoint(graph.file for graph in first.graphs.values())
    third = author(source, plan("bf16", "tensorrt"), MAX_LEN, beside=first)
    assert all(file.location != EMBEDDING_NAME for file in third.files)
    assert 0 < sum(file.size for file in third.files) < first.size
    both = dataclasses.replace(second, files=first.files)
    shared, alone = (
        Graphs(authored, tmp_path / name)
        for name, authored in (("shared", both), ("alone", author(source, plan("fp16", "tensorrt"), MAX_LEN)))
    )
    decodings = [DECODING["tensorrt-modern"](graphs, batch=3) for graphs in (shared, alone)]
    logits = [decoding.step(draw(3, 33, WIDTH), LENGTHS) for decoding in decodings]
    np.testing.assert_array_equal(*logits)
