"""Exports with a calibration: factors, ranges and codes are in the graphs, which compute what numpy says they do."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from small_settings import SETTINGS
from tiny_checkpoint import relative_error

from parrot_calibration.request import CalibrationRequest
from parrot_calibration.run import calibrate
from parrot_export.bundle import export
from parrot_export.checkpoint import open_checkpoint
from parrot_export.cli import main
from parrot_export.conversations import draw_samples
from parrot_export.emulation import TensorRTOnCpu
from parrot_export.folding import folded
from parrot_export.layerwise.feeds import encode_samples
from parrot_export.request import ExportRequest
from parrot_export.scales import read_scales
from parrot_export.verify import BundleUnderTest
from parrot_runtime.image import preprocess
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import load_manifest

GATE = "model.language_model.layers.1.mlp.gate_proj"


@pytest.fixture(scope="module")
def asymmetric(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("asymmetric") / "scales"
    settings = replace(SETTINGS, asymmetric=True, block=32, int4="gptq", per_language=1)
    calibrate(CalibrationRequest(checkpoint=checkpoint, output=folder, settings=settings, threads=1))
    return folder


def exported(checkpoint, folder, precision, calibration, **options):
    request = ExportRequest(
        checkpoint=checkpoint, output=folder, precision=precision, calibration=calibration, max_len=512, **options
    )
    return export(request)[1]


def unpacked(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes & 0xF, codes >> 4], axis=-1).reshape(len(codes), -1)


def dense(folder, name: str, block: int) -> np.ndarray:
    """A matrix of the scales as its codes have it, unpacked and scaled here once more: float32 ``[N, K]``."""
    tensors = load_file(folder / "scales.safetensors")
    codes = unpacked(tensors[f"{name}.uint4"]).astype(np.float32)
    groups = codes.reshape(len(codes), -1, block)
    zeros = tensors.get(f"{name}.uint4.zeros", np.full(groups.shape[:2], 8))
    scales = tensors[f"{name}.uint4.scales"].astype(np.float32)
    return ((groups - zeros[..., None]) * scales[..., None]).reshape(codes.shape)


def product(folder, graph: str, node_name: str, rows: np.ndarray) -> np.ndarray:
    """What the one node gives for ``rows``, in a graph of its own."""
    model = onnx.load(folder / graph)
    (node,) = [node for node in model.graph.node if node.name == node_name]
    kept = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    alone = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, rows.shape)],
        [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
        kept,
    )
    proto = onnx.helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {node.input[0]: rows})[0]


@pytest.mark.parametrize("kind", ["scales", "asymmetric"])
def test_the_cpus_products_are_those_of_the_codes(checkpoint, request, tmp_path, kind):
    """MatMulNBits on odd rows against a dense product of what the scales hold: packing, order and zero points."""
    folder = request.getfixturevalue(kind)
    exported(checkpoint, tmp_path / "b", "int4", folder, target="cpu", verify=False)
    rows = np.random.default_rng(0).standard_normal((33, 128)).astype(np.float32)
    block = 64 if kind == "scales" else 32
    expected = rows @ dense(folder, f"{GATE}.weight", block).T
    got = product(tmp_path / "b", "decoder.onnx", "/llm/layers.1/mlp/gate_proj/MatMulNBits", rows)
    # The kernel rounds what enters to int8 by blocks.
    assert relative_error(got, expected) < 1e-2
    queries = [f"model.language_model.layers.1.self_attn.{part}_proj.weight" for part in "qkv"]
    biases = load_file(checkpoint / "model.safetensors")
    packed = np.concatenate([dense(folder, name, block) for name in queries])
    added = np.concatenate([biases[name.replace("weight", "bias")] for name in queries])
    # The values' rows are divided by the factors of what reads them, and so are their biases.
    factors = read_scales(folder, open_checkpoint(checkpoint)).factors("int4")
    output = factors.get("model.language_model.layers.1.self_attn.o_proj")
    if output is not None:
        added[-len(output) :] /= output
    got = product(tmp_path / "b", "decoder.onnx", "/llm/layers.1/attn/qkv/MatMulNBits", rows)
    assert relative_error(got, rows @ packed.T + added) < 1e-2


def test_tensorrts_codes_are_the_same_numbers(checkpoint, scales, tmp_path):
    exported(checkpoint, tmp_path / "b", "int4", scales, target="tensorrt", dialect="tensorrt-modern", verify=False)
    model = onnx.load(tmp_path / "b/decoder.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    codes, steps = (stored[f"{GATE}.weight.int4{end}"].astype(np.float32) for end in ("", ".scales"))
    got = (codes.reshape(len(codes), -1, 64) * steps[..., None]).reshape(codes.shape)
    np.testing.assert_array_equal(got, dense(scales, f"{GATE}.weight", 64))
    experts = onnx.load(tmp_path / "b/experts.onnx")
    names = {tensor.name for tensor in experts.graph.initializer}
    assert "model.moe.experts.fc2.weight.columns.int4" in names


def test_ranges_are_in_the_graphs(checkpoint, scales, tmp_path):
    exported(checkpoint, tmp_path / "b", "int8", scales, target="tensorrt", verify=False)
    found = read_scales(scales, open_checkpoint(checkpoint)).record.products
    threshold = found["model.multi_modal_projector.linear_2"].thresholds["mse"]
    model = onnx.load(tmp_path / "b/encoder.onnx")
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (node,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and "/projector/linear_2/" in n.name]
    assert float(values[node.input[1]]) == pytest.approx(threshold / 127, rel=1e-3)  # rounded to float16


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("int8", {"target": "cpu"}),
        ("int8", {"target": "tensorrt"}),
        ("int8", {"target": "tensorrt", "dialect": "tensorrt-classic"}),
        ("fp8", {"target": "tensorrt"}),
    ],
)
def test_calibrated_bundles_pass_the_verification_against_the_plain_model(
    checkpoint, scales, tmp_path, monkeypatch, precision, options
):
    """torch has never heard of factors: what is folded must cancel out.

    Random weights round worse than trained ones, and with 4 bits to anything (0.9 without a calibration, too): those
    are compared product by product above. The gate has tests of its own.
    """
    from parrot_export import verify

    wide = verify.Tolerance(0.6, 0.6, "random weights")
    monkeypatch.setattr(verify, "TOLERANCES", dict.fromkeys(verify.TOLERANCES, wide))
    monkeypatch.setattr(verify, "TENSORRT_TOLERANCES", dict.fromkeys(verify.TENSORRT_TOLERANCES, wide))
    loose = {"max_drop": 100.0, "max_kl": 100.0, "gate_samples": 1}
    manifest = exported(checkpoint, tmp_path / "b", precision, scales, **options, **loose)
    assert manifest.verification["status"] == "passed"
    assert manifest.verification["calibration"]["samples"] == 18


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("int8", {"target": "cpu"}),
        ("int4", {"target": "cpu"}),
        ("int8", {"target": "tensorrt"}),
        ("int8", {"target": "tensorrt", "dialect": "tensorrt-classic"}),
        ("int4", {"target": "tensorrt"}),
    ],
)
def test_rounding_flips_no_preferred_expert_on_the_calibration_set(
    checkpoint, model, scales, tmp_path, precision, options
):
    """Routing stays in float32: its weights are, and what it reads are word embeddings and one row of the features.

    TensorRT's graphs run on onnxruntime as they are written; there the router's weights are stored in float16. fp8 is
    not among them: it moves the features of an encoder of random weights by enough to turn 0.37 : 0.47 about.
    """
    exported(checkpoint, tmp_path / "b", precision, scales, verify=False, **options)
    source = open_checkpoint(checkpoint)
    encoded = encode_samples(source, draw_samples((), SETTINGS.per_language, 0).samples, 1024, CODES)
    manifest = load_manifest(tmp_path / "b")
    backend = None if manifest.graphs else TensorRTOnCpu(tmp_path / "b", manifest)
    bundle = BundleUnderTest(tmp_path / "b", manifest, backend)
    import torch

    assert len(encoded) == 18
    preferred = set()
    for one in encoded:
        pixels = preprocess(one.sample.image(), source.recipe.image)[None]
        text = bundle.embedding.gather(one.ids[one.words], bundle.backend.embeds_dtype)
        _, shares = bundle.route(bundle.backend.encode_images(pixels), text)
        with torch.no_grad():
            features = model.get_image_features(torch.from_numpy(pixels))
            words = model.get_input_embeddings()(torch.from_numpy(one.ids[one.words]))[None]
            _, exact = model.model.moe(features, words, torch.ones(words.shape[:2], dtype=torch.bool))
        assert shares[0].argmax() == exact[0].argmax()
        preferred.add(int(exact[0].argmax()))
    assert len(preferred) > 1, "were one expert always preferred, nothing could flip"


def test_factors_enter_the_weights_on_disk(checkpoint, scales, tmp_path):
    """The encoder's norm of an int8 bundle is the checkpoint's over the factors."""
    exported(checkpoint, tmp_path / "b", "int8", scales, target="cpu", verify=False)
    factors = read_scales(scales, open_checkpoint(checkpoint)).factors("int8")
    name = "model.vision_tower.vision_model.encoder.layers.0.layer_norm1.weight"
    site = "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
    view = folded(open_checkpoint(checkpoint), factors)
    got = load_file(tmp_path / "b/weights/encoder.safetensors")[name]
    np.testing.assert_array_equal(got, view.tensors[name].load())
    plain = open_checkpoint(checkpoint).tensors[name].load()
    np.testing.assert_allclose(got * factors[site], plain, rtol=1e-6)


def run(*arguments, code: int):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="parrot-export")
    assert result.exit_code == code, result.output
    return result.stderr


def test_what_cannot_be_is_refused_and_nothing_is_written(checkpoint, scales, asymmetric, tmp_path):
    end = ["-o", tmp_path / "b", "--no-verify", "--max-len", "512"]
    assert "rounds nothing" not in run(checkpoint, "--int8", "--calibration", tmp_path / "none", *end, code=2)
    assert "which --fp16 does not" in run(checkpoint, "--fp16", "--calibration", scales, *end, code=2)
    told = run(checkpoint, "--int4", "--calibration", asymmetric, "--target", "tensorrt", *end, code=2)
    assert "TensorRT has no zero points" in told
    other = shutil.copytree(scales, tmp_path / "other")
    data = json.loads((other / "scales.json").read_text())
    (other / "scales.json").write_text(json.dumps(data | {"checkpoint": "f" * 64}))
    assert "scales of another checkpoint" in run(checkpoint, "--int8", "--calibration", other, *end, code=2)
    name = next(iter(data["products"]))
    data["products"][name]["modules"] = [f"{name}x"]
    (other / "scales.json").write_text(json.dumps(data))
    told = run(checkpoint, "--int8", "--calibration", other, *end, code=2)
    assert f"this model has no layer '{name}x'; did you mean" in told
    assert len(told.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_released_experts_are_folded_and_rounded(swiglu, tmp_path):
    """SwiGLU experts, an output layer of its own, and widths that no block divides: 48 and 88."""
    _, source = swiglu
    calibrate(
        CalibrationRequest(
            checkpoint=source, output=tmp_path / "scales", settings=replace(SETTINGS, per_language=1), threads=1
        )
    )
    scales = read_scales(tmp_path / "scales", open_checkpoint(source))
    assert {"model.moe.experts.down_proj", "lm_head"} <= set(scales.record.products)
    assert {name.split(".")[-2] for name in scales.record.matrices} == {"o_proj"}  # 96 = 3·32
    manifest = exported(source, tmp_path / "b", "int8", tmp_path / "scales", target="cpu", verify=False)
    assert manifest.verification["calibration"]["samples"] == 6
