"""TensorRT-RTX parses and compiles every graph of both dialects for three generations of GPUs; no GPU is needed."""

import pytest
from tensorrt_graphs import DECODING, Graphs, compile_graph
from tiny_checkpoint import MAX_LEN, tiny_model, write_checkpoint

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import plan

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; `pip install tensorrt-rtx`")

CAPABILITIES = ("SM80", "SM89", "SM120")
# Wide enough for blocks of 128, and with the heads of the usual kind: four for queries, two for keys.
TEXT = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 32, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    model = tiny_model(text=TEXT, num_experts=3, expert_intermediate_size=128)
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("wide") / "checkpoint", model))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("dialect", list(DECODING))
def test_every_graph_compiles_and_every_input_is_used(source, tmp_path, dialect, precision):
    graphs = Graphs(author(source, plan(precision, "tensorrt", dialect), MAX_LEN), tmp_path)
    for role in graphs.authored.graphs:
        engine, log = compile_graph(graphs, role, CAPABILITIES)
        assert engine is not None, f"{role}: {log}"
        assert not [line for line in log if "unused" in line.lower()]
