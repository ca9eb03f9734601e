"""What a graph needs, read off the graph: a GPU that has its types, and weights the manifest vouches for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file
from small_graphs import WIDTH, draw, fp8_net, rewrite, save, stored, value
from stand_in import RTX, on, run

from parrot_export.engines.cache import EngineRequest, build_engines
from parrot_export.engines.sources import read_graph
from parrot_export.engines.targets import Target
from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.gpu import Gpu
from parrot_runtime.manifest import load_manifest


def with_fp8(bundle: Path) -> None:
    """The encoder in fp8, under the names of the encoder's inputs and outputs."""
    path = fp8_net(bundle / "encoder.trt.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = ["pixel_values" if name == "x" else name for name in node.input]
    model.graph.input[0].name = "pixel_values"
    path.write_bytes(model.SerializeToString())
    rewrite(bundle, load_manifest(bundle))


def test_fp8_is_refused_for_a_gpu_without_it_before_anything_is_built(bundle, built):
    with_fp8(bundle)
    with pytest.raises(InputError, match=r"encoder\.trt\.onnx computes in fp8, which SM 80 does not have: name SM 89"):
        run(bundle, on(80))
    assert not built
    run(bundle, on(89))


def test_of_the_usual_gpus_those_without_fp8_are_left_out_and_it_says_which(bundle, built):
    with_fp8(bundle)
    notes, usual = [], Target(RTX, (80, 89, 120), False, None)
    found = list(build_engines(EngineRequest(bundle=bundle), note=notes.append, target=usual))
    assert [engines.record.sm for engines in found] == [89, 120]
    assert notes == [
        "there is no GPU here: building for SM 89, 120 with tensorrt-rtx 1.7.1; name others with --sm",
    ]
    with pytest.raises(InputError, match="SM 86 does not have"):
        list(build_engines(EngineRequest(bundle=bundle), target=Target(RTX, (86,), False, Gpu("RTX 3090", 86))))


def test_a_type_that_only_a_cast_names_counts(bundle):
    node = helper.make_node("Cast", ["pixel_values"], ["narrow"], to=TensorProto.BFLOAT16)
    back = helper.make_node("Cast", ["narrow"], ["image_features"], to=TensorProto.FLOAT16)
    inputs, outputs = [value("pixel_values", ["images", WIDTH])], [value("image_features", ["images", WIDTH])]
    save(bundle / "encoder.trt.onnx", [node, back], inputs, outputs)
    manifest = load_manifest(bundle)
    facts = read_graph(bundle, manifest.tensorrt["encoder"], manifest)
    facts.require(80)
    with pytest.raises(InputError, match="computes in bf16, which SM 75 does not have"):
        facts.require(75)


def test_weights_are_the_graphs_bytes_not_the_files(bundle):
    """Two graphs may share a file; int4 takes half a byte."""
    shared = stored(bundle, "weights/encoder.trt.safetensors", weight=draw(WIDTH, WIDTH), other=draw(500, 7))
    packed = helper.make_tensor("packed", TensorProto.INT4, [10, 6], np.zeros(60, np.int8))
    node = helper.make_node("Gemm", ["pixel_values", "weight"], ["image_features"])
    inputs, outputs = [value("pixel_values", ["images", WIDTH])], [value("image_features", ["images", WIDTH])]
    save(bundle / "encoder.trt.onnx", [node], inputs, outputs, [shared[0], packed])
    rewrite(bundle, load_manifest(bundle))
    manifest = load_manifest(bundle)
    facts = read_graph(bundle, manifest.tensorrt["encoder"], manifest)
    assert facts.weight_bytes == 2 * WIDTH * WIDTH + 30
    assert (facts.first_sm, facts.newest_type) == (0, None)
    assert list(facts.source.weights) == ["weights/encoder.trt.safetensors"]


def test_weights_that_are_not_listed_are_refused(bundle, built):
    save_file({"weight": draw(24, 24)}, bundle / "weights/stray.safetensors")
    encoder = bundle / "encoder.trt.onnx"
    encoder.write_bytes(encoder.read_bytes().replace(b"encoder.trt.safetensors", b"notable.trt.safetensors"))
    rewrite(bundle, load_manifest(bundle))
    with pytest.raises(BundleError, match=r"lies in 'weights/notable\.trt\.safetensors', which the manifest does not"):
        run(bundle)
