"""Language models and encoders of other families in TensorRT's dialects: run without TensorRT, and compiled by it.

The reference is the model in torch, of which ``graphs/test_families.py`` shows that it is transformers' own.
"""

import numpy as np
import onnx
import pytest
import torch
from tensorrt_graphs import DECODING, Graphs, compile_graph
from tiny_checkpoint import MAX_LEN, WIDTH, relative_error, tiny_model, write_checkpoint

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import plan

QWEN3 = {"model_type": "qwen3", "head_dim": 32}
LLAMA = {"model_type": "llama"}
SIGLIP = {"vision": {"model_type": "siglip_vision_model"}, "vision_feature_select": "patch"}
CHINESE_CLIP = {"vision": {"model_type": "chinese_clip_vision_model"}}
PATCHES_ALONE = {"vision_feature_select": "patch"}
# Norms of queries and keys without biases and with all four; no bias at all, with shared keys and without.
FAMILIES = {
    "qwen3-siglip": {"text": QWEN3, **SIGLIP},
    "qwen3-biased-clip-patches": {"text": QWEN3 | {"attention_bias": True}, "tie_word_embeddings": True}
    | PATCHES_ALONE,
    "llama-chinese-clip": {"text": LLAMA, **CHINESE_CLIP},
    "vicuna-siglip": {"text": LLAMA | {"num_key_value_heads": 6}, **SIGLIP},
}
# As in test_tensorrt.py: other orders of the same sums, and products on 11 bits through five layers.
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-2}
CASES = [(family, dialect, "fp32") for family in FAMILIES for dialect in DECODING]
CASES += [("qwen3-siglip", "tensorrt-modern", "fp16"), ("vicuna-siglip", "tensorrt-classic", "fp16")]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """``family(name)``: the model in torch and its checkpoint."""
    made = {}

    def make(name: str):
        if name not in made:
            model = tiny_model(**FAMILIES[name], num_experts=3)
            made[name] = model, open_checkpoint(write_checkpoint(tmp_path_factory.mktemp(name) / "checkpoint", model))
        return made[name]

    return make


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("name", "dialect", "precision"), CASES)
def test_every_graph_is_torchs(family, tmp_path, name, dialect, precision):
    """Three pictures; batch 3 of 33, 17 and 5, padded on the right, then a step of one token."""
    model, checkpoint = family(name)
    graphs = Graphs(author(checkpoint, plan(precision, "tensorrt", dialect), MAX_LEN), tmp_path)
    decoder = checkpoint.architecture.decoder
    decoding = DECODING[dialect](graphs, batch=3, shape=(decoder.kv_heads, MAX_LEN, decoder.head_dim))
    for embeds, valid in ((draw(3, 33, WIDTH), [33, 17, 5]), (draw(3, 1, WIDTH), [1, 1, 1])):
        logits = decoding.step(embeds, valid)
        assert relative_error(logits, decoding.expected(model)) < TOLERANCE[precision]
    pixels, text, mask = draw(3, 3, 28, 28), draw(3, 33, WIDTH), np.arange(33)[None] < np.array([[33], [17], [5]])
    with torch.no_grad():
        features = model.get_image_features(torch.from_numpy(pixels))
        visual, routing = model.model.moe(features, torch.from_numpy(text), torch.from_numpy(mask))
    got = graphs.run("encoder", pixel_values=pixels)["image_features"]
    assert got.shape == (3, checkpoint.architecture.vision.tokens, WIDTH)
    assert relative_error(got, features.numpy()) < TOLERANCE[precision]
    got = graphs.run("experts", image_features=features.numpy(), text_embeds=text, text_mask=mask)
    assert relative_error(got["visual_tokens"], visual.numpy()) < TOLERANCE[precision]
    assert relative_error(got["routing"], routing.numpy()) < TOLERANCE[precision]


@pytest.mark.parametrize("dialect", DECODING)
@pytest.mark.parametrize("name", ["qwen3-siglip", "llama-chinese-clip"])
def test_weights_are_shared_with_onnxruntimes_graphs(family, name, dialect):
    _, checkpoint = family(name)
    first = author(checkpoint, plan("fp16", "cpu"), MAX_LEN)
    assert not author(checkpoint, plan("fp16", "tensorrt", dialect), MAX_LEN, beside=first).files


@pytest.mark.parametrize(
    ("name", "dialect"), [("qwen3-siglip", "tensorrt-modern"), ("llama-chinese-clip", "tensorrt-classic")]
)
def test_every_graph_compiles_and_every_input_is_used(family, tmp_path, name, dialect):
    """For three generations of GPUs, none of which is needed."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; `pip install tensorrt-rtx`")
    graphs = Graphs(author(family(name)[1], plan("fp16", "tensorrt", dialect), MAX_LEN), tmp_path)
    for role in graphs.authored.graphs:
        onnx.checker.check_model(graphs.path(role), full_check=True)
        engine, log = compile_graph(graphs, role, ("SM80", "SM89", "SM120"))
        assert engine is not None, f"{role}: {log}"
        assert not [line for line in log if "unused" in line.lower()]
