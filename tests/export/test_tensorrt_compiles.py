"""TensorRT-RTX parses and compiles every graph of both dialects for three generations of GPUs; no GPU is needed."""

import onnx
import pytest
from tensorrt_graphs import DECODING, Graphs, compile_graph, compile_model, ranges_of
from tiny_checkpoint import MAX_LEN, tiny_model, write_checkpoint

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import PRESETS, plan, require_compute_capabilities
from parrot_runtime.errors import InputError

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; `pip install tensorrt-rtx`")

CAPABILITIES = ("SM80", "SM89", "SM120")
# Wide enough for blocks of 128 and, along 192, of 64; with heads of the usual kind: four for queries, two for keys.
TEXT = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4, "head_dim": 32, "num_hidden_layers": 2}
CASES = [(dialect, precision) for dialect in DECODING for precision in PRESETS[dialect]]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    model = tiny_model(text=TEXT, num_experts=3, expert_intermediate_size=128)
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("wide") / "checkpoint", model))


@pytest.fixture(scope="module")
def ranges(source, tmp_path_factory):
    return ranges_of(source, tmp_path_factory.mktemp("ranges"))


@pytest.mark.parametrize(("dialect", "precision"), CASES)
def test_every_graph_compiles_and_every_input_is_used(source, ranges, tmp_path, dialect, precision):
    chosen = plan(precision, "tensorrt", dialect)
    graphs = Graphs(author(source, chosen, MAX_LEN, ranges=ranges), tmp_path)
    capabilities = CAPABILITIES[1:] if precision == "fp8" else CAPABILITIES
    require_compute_capabilities(chosen, [int(name[2:]) for name in capabilities])
    for role in graphs.authored.graphs:
        onnx.checker.check_model(graphs.path(role), full_check=True)
        engine, log = compile_graph(graphs, role, capabilities)
        assert engine is not None, f"{role}: {log}"
        assert not [line for line in log if "unused" in line.lower()]


def test_an_unused_input_would_be_reported(tmp_path):
    """What the test above looks for is what TensorRT says of the input of Attention that it ignores."""
    half, axes = onnx.TensorProto.FLOAT16, ["batch", 4, 33, 32]
    inputs = [onnx.helper.make_tensor_value_info(name, half, axes) for name in ("q", "k", "v")]
    inputs.append(onnx.helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["batch"]))
    node = onnx.helper.make_node("Attention", ["q", "k", "v", "", "", "", "lengths"], ["out"])
    output = onnx.helper.make_tensor_value_info("out", half, axes)
    graph = onnx.helper.make_graph([node], "attention", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 24)], ir_version=12)
    onnx.save(model, tmp_path / "attention.onnx")
    shapes = {name: [(batch, 4, 33, 32) for batch in (1, 2, 3)] for name in ("q", "k", "v")}
    _, log = compile_model(str(tmp_path / "attention.onnx"), [shapes | {"lengths": [(1,), (2,), (3,)]}], ("SM89",))
    assert [line for line in log if "unused" in line.lower()]


def test_fp8_is_refused_for_gpus_without_it(source, ranges, tmp_path):
    """By our own line, which speaks the truth: TensorRT refuses the graph for SM80 too."""
    chosen = plan("fp8", "tensorrt")
    with pytest.raises(InputError, match="SM80 has no fp8 arithmetic; export with --int8"):
        require_compute_capabilities(chosen, [120, 80])
    graphs = Graphs(author(source, chosen, MAX_LEN, ranges=ranges), tmp_path)
    engine, _ = compile_graph(graphs, "experts", ("SM80",))
    assert engine is None


def test_a_range_that_is_missing_is_asked_for(source):
    with pytest.raises(InputError, match="no range is known for what enters it"):
        author(source, plan("int8", "tensorrt"), MAX_LEN, ranges={"model.moe.experts.fc1": 1.0})
