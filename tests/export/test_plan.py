"""Plans are data; names that are not offered are refused; the operator layer follows the plan's types."""

import dataclasses

import onnx_ir as ir
import pytest
from tiny_checkpoint import MAX_LEN

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import ROLES, ComponentPlan, plan
from parrot_runtime.errors import InputError


@pytest.mark.parametrize(("precision", "stored"), [("fp32", "float32"), ("fp16", "float16")])
def test_a_cpu_computes_in_float32_whatever_is_stored(precision, stored):
    chosen = plan(precision, "cpu")
    assert chosen.embedding == stored
    assert chosen.kv_dtype == "float32"
    assert set(chosen.components.values()) == {ComponentPlan(weights=stored, compute="float32")}


@pytest.mark.parametrize(("precision", "target"), [("int3", "cpu"), ("fp16", "toaster")])
def test_names_that_are_not_offered_are_refused(precision, target):
    with pytest.raises(InputError, match="is not offered; choose"):
        plan(precision, target)


def test_a_plan_of_half_precision_arithmetic_reaches_every_border(checkpoint):
    """Softmax, routing and logits stay float32; every other border, and the KV cache, has the computing type."""
    half = ComponentPlan(weights="float16", compute="float16")
    chosen = dataclasses.replace(plan("fp16"), components=dict.fromkeys(ROLES, half))
    authored = author(open_checkpoint(checkpoint), chosen, MAX_LEN)
    borders = {t.name: t.dtype for graph in authored.graphs.values() for t in (*graph.inputs, *graph.outputs)}
    assert {name for name, dtype in borders.items() if dtype == "float32"} == {"routing", "logits"}
    assert borders["present.2.value"] == borders["pixel_values"] == borders["visual_tokens"] == "float16"
    softmaxes = [node for node in authored.models["experts"].graph if node.op_type == "Softmax"]
    assert len(softmaxes) == 2
    assert all(node.inputs[0].dtype == ir.DataType.FLOAT for node in softmaxes)
