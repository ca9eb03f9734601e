"""Plans are data; names that are not offered are refused; the operator layer follows the plan's types."""

import dataclasses

import onnx_ir as ir
import pytest
from tiny_checkpoint import MAX_LEN

from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import PRESETS, ROLES, ComponentPlan, plan, require_compute_capabilities
from parrot_runtime.errors import InputError
from parrot_runtime.names import TARGETS


@pytest.mark.parametrize(("precision", "stored"), [("fp32", "float32"), ("fp16", "float16")])
def test_a_cpu_computes_in_float32_whatever_is_stored(precision, stored):
    chosen = plan(precision, "cpu")
    assert chosen.embedding == stored
    assert chosen.kv_dtype == "float32"
    assert set(chosen.components.values()) == {ComponentPlan(weights=stored, compute="float32")}


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_a_cpu_quantises_keeps_the_rest_in_float16_and_needs_no_ranges(precision):
    chosen = plan(precision, "cpu")
    assert chosen.embedding == "float16"
    assert chosen.kv_dtype == "float32"
    assert not chosen.rounds_activations
    assert all(part.quantised for part in chosen.components.values())
    assert ("prefill" in chosen.components) == (precision == "int4")


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


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_a_plan_that_reads_in_its_dialect(target):
    chosen = plan("fp16", target)
    assert chosen.dialect == ("ort" if target == "cpu" else "tensorrt-modern")
    assert set(chosen.components) == set(ROLES)
    assert chosen.kv_dtype == chosen.components["decoder"].compute


@pytest.mark.parametrize("precision", ["int8", "int4", "fp8"])
def test_what_is_quantised_computes_in_half_precision_and_ends_in_it(precision):
    """The output layer and the word embeddings keep float16; int4 is of weights alone."""
    chosen = plan(precision, "tensorrt", "tensorrt-classic")
    assert chosen.dialect == "tensorrt-classic"
    assert chosen.components["lm_head"] == ComponentPlan("float16", "float16")
    assert chosen.embedding == chosen.kv_dtype == chosen.components["decoder"].stored == "float16"
    assert (chosen.components["decoder"].activations is None) == (precision == "int4")


@pytest.mark.parametrize(
    "names", [("bf16", "cpu"), ("fp8", "cpu"), ("fp16", "cpu", "tensorrt-modern"), ("fp16", "tensorrt", "ort")]
)
def test_what_a_target_cannot_read_is_refused(names):
    with pytest.raises(InputError, match="is not offered; choose"):
        plan(*names)


def test_only_fp8_asks_for_a_generation():
    for precision in PRESETS["tensorrt-modern"]:
        if precision != "fp8":
            require_compute_capabilities(plan(precision, "tensorrt"), [80])
    require_compute_capabilities(plan("fp8", "tensorrt"), [89, 120])
    with pytest.raises(InputError, match="SM80 has no fp8 arithmetic"):
        require_compute_capabilities(plan("fp8", "tensorrt"), [89, 80])
