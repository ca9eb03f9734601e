"""Calibrated bundles, product by product against rounding simulated in numpy, and compiled into real engines.

The simulation knows the ONNX operators by their specification, and takes thresholds, factors and codes from the two
files of scales: nothing of ``parrot_export.quantise`` is in it. Each product stands in a graph of its own, cut out of
the bundle's with the roundings of its operands, and runs on onnxruntime as it is written.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file
from tiny_checkpoint import relative_error

from parrot_export.bundle import export
from parrot_export.checkpoint import open_checkpoint
from parrot_export.folding import folded
from parrot_export.request import ExportRequest
from parrot_runtime.manifest import load_manifest

# What down_proj has its inputs divided by in float16: ``_HEADROOM`` of the TensorRT dialects.
WIDE = 64.0
LIMITS = {"int8": 127, "float8_e4m3fn": 448}
CASES = [
    ("int8", "tensorrt", "tensorrt-modern"),
    ("int8", "tensorrt", "tensorrt-classic"),
    ("int4", "tensorrt", "tensorrt-modern"),
    ("int4", "tensorrt", "tensorrt-classic"),
    ("fp8", "tensorrt", "tensorrt-modern"),
    ("fp8", "tensorrt", "tensorrt-classic"),
    ("int8", "cpu", None),
    ("int4", "cpu", None),
]


@pytest.fixture(scope="module")
def bundles(checkpoint, scales, tmp_path_factory):
    """``bundles(precision, target, dialect)``: the folder of that export, made once."""
    root, made = tmp_path_factory.mktemp("calibrated"), {}

    def make(precision: str, target: str, dialect: str | None) -> Path:
        key = (precision, target, dialect)
        if key not in made:
            made[key] = root / "-".join(map(str, key))
            request = {"precision": precision, "target": target, "dialect": dialect, "calibration": scales}
            export(ExportRequest(checkpoint=checkpoint, output=made[key], max_len=96, verify=False, **request))
        return made[key]

    return make


class Recorded:
    """The files of scales, and the checkpoint's weights with the factors of a precision folded in."""

    def __init__(self, checkpoint: Path, scales: Path, precision: str) -> None:
        self.record = json.loads((scales / "scales.json").read_text())
        self.tensors = load_file(scales / "scales.safetensors")
        end = ".int4.factors" if precision == "int4" else ".int8.factors"
        factors = {name.removesuffix(end): array for name, array in self.tensors.items() if name.endswith(end)}
        self._view = folded(open_checkpoint(checkpoint), factors)

    def threshold(self, module: str) -> float:
        """The chosen threshold of what enters ``module``."""
        (found,) = [one for one in self.record["products"].values() if module in one["modules"]]
        return found["thresholds"][self.record["settings"]["ranges"]]

    def matrix(self, name: str) -> np.ndarray:
        """A matrix as its product reads it, float64 ``[N, K]``; of experts, one over all of them."""
        array = self._view.tensors[name.removesuffix(".columns")].load().astype(np.float64)
        if name.endswith(".columns"):
            array = array.transpose(1, 0, 2)
            return array.reshape(len(array), -1)
        return array.reshape(-1, array.shape[-1])

    def four_bits(self, name: str) -> np.ndarray:
        """What the codes of ``name`` stand for, float64 ``[N, K]``."""
        packed = self.tensors[f"{name}.uint4"]
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1).astype(np.float64)
        steps = self.tensors[f"{name}.uint4.scales"].astype(np.float64)
        return (codes.reshape(*steps.shape, -1) - 8).reshape(codes.shape) * np.repeat(
            steps, codes.shape[1] // steps.shape[1], axis=1
        )


@dataclass(frozen=True)
class Cut:
    """One product and the nodes that round its operands; ``names`` are its matrices, one below the other."""

    model: onnx.ModelProto
    nodes: list[onnx.NodeProto]
    rows: str
    names: list[str]
    kind: str

    def run(self, rows: np.ndarray) -> np.ndarray:
        """What it gives for ``rows``, as the graph says it, in float64 and without its bias."""
        inputs = {name for node in self.nodes for name in node.input}
        stored = {tensor.name: tensor for tensor in self.model.graph.initializer}
        element = onnx.helper.np_dtype_to_tensor_dtype(rows.dtype)
        graph = onnx.helper.make_graph(
            self.nodes,
            "cut",
            [onnx.helper.make_tensor_value_info(self.rows, element, rows.shape)],
            [onnx.helper.make_empty_tensor_value_info(self.nodes[-1].output[0])],
            [stored[name] for name in inputs if name in stored],
        )
        opsets, version = self.model.opset_import, self.model.ir_version
        proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=version)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {self.rows: rows})[0].astype(np.float64)

    def stored(self, name: str) -> np.ndarray:
        """An initialiser's numbers."""
        (tensor,) = [tensor for tensor in self.model.graph.initializer if tensor.name == name]
        return onnx.numpy_helper.to_array(tensor)


def without_bias(node: onnx.NodeProto, operands: int) -> onnx.NodeProto:
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[operands:]
    return alone


def cuts(folder: Path):
    """Every product of a bundle whose weights are codes."""
    manifest = load_manifest(folder)
    for graph in {**manifest.graphs, **manifest.tensorrt}.values():
        model = onnx.load(folder / graph.file)
        made = {name: node for node in model.graph.node for name in node.output}
        for node in model.graph.node:
            if node.op_type in ("DynamicQuantizeMatMul", "MatMulNBits"):
                key, _, kind = node.input[1].removesuffix(".transposed").rpartition(".")
                yield Cut(model, [without_bias(node, 3)], node.input[0], key.replace(f".{kind}+", "+").split("+"), kind)
            weights = made.get(node.input[1]) if node.op_type in ("Gemm", "MatMul") and len(node.input) > 1 else None
            if weights is None or weights.op_type != "DequantizeLinear":
                continue
            key, _, kind = weights.input[0].rpartition(".")
            chain, rows = [weights, without_bias(node, 2)], node.input[0]
            narrow = made[rows]
            if kind != "int4":
                assert narrow.op_type == "DequantizeLinear"
                chain[:0], rows = [made[narrow.input[0]], narrow], made[narrow.input[0]].input[0]
            yield Cut(model, chain, rows, key.split("+"), kind)


def shrunk(cut: Cut) -> float:
    """By what down_proj has its inputs divided in float16, which its products might leave; see ``wide_linear``."""
    return WIDE if cut.names[0].endswith(".down_proj.weight") and cut.nodes[0].op_type == "QuantizeLinear" else 1.0


def rounded(numbers: np.ndarray, scale: np.ndarray | float, kind: str) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear by their specification, in float64."""
    if kind == "int8":
        return np.clip(np.rint(numbers / scale), -128, 127) * scale
    return np.clip(numbers / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale


def settled(rows: np.ndarray, scale: float, kind: str) -> np.ndarray:
    """``rows`` with zeros where the code depends on the precision of QuantizeLinear's division.

    Before opset 23 ONNX did not say what it is; since then it is the scale's, float16 here, unless the node names
    another. onnxruntime divided in float32 up to 1.31 and follows the standard from 1.32 on; either is right.
    """
    wide = rows.astype(np.float64) / scale
    same = rounded(wide, 1.0, kind) == rounded(wide.astype(np.float16).astype(np.float64), 1.0, kind)
    assert same.mean() > 0.95
    return np.where(same, rows, np.zeros_like(rows))


def simulated(cut: Cut, recorded: Recorded, rows: np.ndarray) -> np.ndarray:
    """The product that ``cut`` should give, in float64."""
    exact, operator = rows.astype(np.float64), cut.nodes[-1].op_type
    if cut.kind in ("int4", "uint4"):
        weights = np.concatenate([recorded.four_bits(name) for name in cut.names])
    else:
        plain = np.concatenate([recorded.matrix(name) for name in cut.names])
        scale = np.abs(plain).max(axis=1, keepdims=True) / LIMITS[cut.kind]
        scale = scale.astype(np.float32 if operator == "DynamicQuantizeMatMul" else np.float16).astype(np.float64)
        weights = rounded(plain, scale, cut.kind)
    if operator == "MatMulNBits":
        # At this accuracy level onnxruntime rounds what enters to int8, block by block.
        block = {one.name: one.i for one in cut.nodes[-1].attribute}["block_size"]
        groups = exact.reshape(len(exact), -1, block)
        scale = np.abs(groups).max(axis=-1, keepdims=True) / 127
        exact = rounded(groups, scale, "int8").reshape(exact.shape)
    elif operator == "DynamicQuantizeMatMul":
        # DynamicQuantizeLinear: codes 0 to 255 over all that entered, zero among them.
        low, high = min(exact.min(), 0), max(exact.max(), 0)
        scale = (high - low) / 255
        zero = np.clip(np.rint(-low / scale), 0, 255)
        exact = (np.clip(np.rint(exact / scale) + zero, 0, 255) - zero) * scale
    elif cut.kind != "int4":
        module = cut.names[0].removesuffix(".columns").removesuffix(".weight")
        scale = float(np.float16(recorded.threshold(module) / shrunk(cut) / LIMITS[cut.kind]))
        assert float(cut.stored(cut.nodes[0].input[1])) == pytest.approx(scale, rel=1e-6)
        exact = rounded(exact, scale, cut.kind)
    return exact @ weights.T


# TensorRT's products are float16: each operand and the result are rounded to 11 bits. onnxruntime's are int32 sums
# times float32 scales. In both a code that lies between two may tip: up to a 127th of one input.
TOLERANCE = 2e-3


@pytest.mark.parametrize(("precision", "target", "dialect"), CASES)
def test_products_are_those_of_the_recorded_scales(checkpoint, scales, bundles, precision, target, dialect):
    recorded, compared, rng = Recorded(checkpoint, scales, precision), 0, np.random.default_rng(0)
    for cut in cuts(bundles(precision, target, dialect)):
        width = recorded.matrix(cut.names[0]).shape[1]
        narrow = target == "tensorrt" and (cut.kind == "int4" or cut.stored(cut.nodes[0].input[1]).dtype == np.float16)
        module = cut.names[0].removesuffix(".columns").removesuffix(".weight")
        # So that a few in a hundred are beyond the threshold.
        rows = rng.standard_normal((33, width)) * recorded.threshold(module) / shrunk(cut) / 2
        rows = rows.astype(np.float16 if narrow else np.float32)
        if cut.nodes[0].op_type == "QuantizeLinear":
            rows = settled(rows, float(cut.stored(cut.nodes[0].input[1])), cut.kind)
        expected = simulated(cut, recorded, rows)
        assert relative_error(cut.run(rows), expected) < TOLERANCE, cut.names
        # What this would not see if it took the roundings for nothing.
        plain = rows.astype(np.float64) @ np.concatenate([recorded.matrix(name) for name in cut.names]).T
        assert relative_error(plain, expected) > 2 * TOLERANCE, cut.names
        compared += 1
    # Five products in each of the decoder's three layers and both of the experts'; the encoder's, where it is rounded,
    # four in each of two layers and the projector's; on the cpu the output layer, and with int4 a decoder for prompts.
    assert compared >= {"int8": 3 * 5 + 2 + 2 * 4 + 2, "fp8": 3 * 5 + 2 + 2 * 4 + 2, "int4": 3 * 5 + 2}[precision]


@pytest.mark.parametrize(("precision", "target", "dialect"), [case for case in CASES if case[1] == "tensorrt"])
def test_calibrated_graphs_become_engines(bundles, precision, target, dialect):
    """By the exporter's own builder, for a GPU that is not there."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; `pip install tensorrt-rtx`")
    from parrot_export.engines.cache import EngineRequest, build_engines

    folder = bundles(precision, target, dialect)
    request = EngineRequest(bundle=folder, sms=(89,), flavour="tensorrt-rtx", max_batch=2)
    (engines,) = build_engines(request)
    assert {path.name for path in engines.folder.glob("*.engine")} == {
        f"{role}.engine" for role in ("encoder", "experts", "decoder")
    }


@pytest.mark.parametrize(("precision", "target", "dialect"), CASES)
def test_nothing_rounds_what_the_router_reads(bundles, precision, target, dialect):
    """Back from ``routing`` to the graph's inputs: no codes, and no cast to anything narrower than float32.

    TensorRT's graphs store the router's matrix in float16 and widen it: its numbers, not what enters it.
    """
    folder = bundles(precision, target, dialect)
    manifest = load_manifest(folder)
    graph = (manifest.graphs or manifest.tensorrt)["experts"]
    model = onnx.load(folder / graph.file)
    made = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    reached, pending = [], ["routing"]
    while pending:
        node = made.get(pending.pop())
        if node is not None and node not in reached:
            reached.append(node)
            pending += node.input
    kinds = {node.op_type for node in reached}
    assert "Softmax" in kinds or any("softmax" in node.name.lower() for node in reached)
    assert not [kind for kind in kinds if "Quantize" in kind or kind == "MatMulNBits"]
    targets = [one.i for node in reached if node.op_type == "Cast" for one in node.attribute if one.name == "to"]
    assert not set(targets) & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    weights = [stored[name] for node in reached for name in node.input if name.startswith("model.moe.router")]
    assert weights
    assert set(weights) <= {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
