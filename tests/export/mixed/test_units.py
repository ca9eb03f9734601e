"""Units: every product of every graph is in one, and graphs are written as a mixed plan says, part by part."""

from collections import Counter

import pytest

from parrot_export.author import author
from parrot_export.dialects.base import EXACT
from parrot_export.folding import fold_sites
from parrot_export.mixed.units import fits, model_units
from parrot_export.plan import mixed_plan, plan
from parrot_runtime.errors import InputError


def stored_as(units, **changed):
    return {unit.name: changed.get(unit.name, "float16") for unit in units}


@pytest.mark.parametrize("form", ["paper", "released", "llava"])
def test_every_product_belongs_to_one_unit(exported, form):
    checkpoint = exported(form).checkpoint
    units = model_units(checkpoint.architecture)
    modules = Counter(module for unit in units for module in unit.modules)
    assert set(modules.values()) == {1}
    products = {name for role in author(checkpoint, plan("fp16"), 96).products.values() for name in role}
    assert products - EXACT <= set(modules)
    # A factor is of one unit: what makes an input is a norm, or a product beside it.
    for site in fold_sites(checkpoint.architecture).values():
        (home,) = [unit for unit in units if site.product in unit.modules]
        matrices = {name.removesuffix(".weight") for name in (*site.weights, *site.divided) if "norm" not in name}
        assert {name.removesuffix(".bias") for name in matrices} <= set(home.modules)


def test_parts_are_written_with_their_own_operators(source):
    """Three layers, three kinds: 4 bits in one attention, 8 in one MLP, float16 elsewhere."""
    units = model_units(source.architecture)
    changed = {"decoder.layers.0.attn": "int4", "decoder.layers.1.mlp": "int8", "encoder.layers.1.mlp": "int8"}
    chosen = mixed_plan(stored_as(units, **changed, experts="int4", lm_head="int8"), tied=False)
    models = author(source, chosen, 96).models

    def kernels(role, kind):
        return sorted(node.name for node in models[role].graph if node.op_type == kind)

    prefix = "/llm/layers.0/attn"
    assert kernels("decoder", "MatMulNBits") == [
        f"{prefix}/o_proj/MatMulNBits",
        f"{prefix}/qkv/MatMulNBits",
        "/llm/lm_head/MatMulNBits",
    ]
    parts = ("down_proj", "gate_proj", "up_proj")
    wanted = [f"/llm/layers.1/mlp/{part}/DynamicQuantizeMatMul" for part in parts]
    assert kernels("decoder", "DynamicQuantizeMatMul") == wanted
    assert len(kernels("decoder", "Gemm")) == 2 * 2 + 2 * 3
    assert len(kernels("encoder", "DynamicQuantizeMatMul")) == 2
    assert len(kernels("experts", "MatMulNBits")) == 2
    assert set(models) == {"encoder", "experts", "decoder"}
    assert chosen.units["decoder.layers.0.attn"] == "int4"


def test_a_uniform_plan_has_no_units(source):
    assert not plan("int4").units
    assert not mixed_plan(stored_as(model_units(source.architecture)), tied=False).rounds_activations


def test_factors_go_by_the_fit_of_their_unit(source):
    units = model_units(source.architecture)
    changed = {"decoder.layers.0.attn": "int4", "decoder.layers.1.mlp": "int8"}
    found = fits(units, stored_as(units, **changed))
    layers = "model.language_model.layers"
    assert found[f"{layers}.0.self_attn.o_proj"] == "int4"
    assert found[f"{layers}.1.mlp.gate_proj"] == "int8"
    assert f"{layers}.0.mlp.gate_proj" not in found


def test_a_tied_output_layer_is_one_unit_with_the_embeddings(exported):
    model = exported("released").checkpoint.architecture
    assert [unit.name for unit in model_units(model)][-1] == "embedding"
    assert model_units(model, embedding_bits=8)[-1].choices == ("int8",)
    with pytest.raises(InputError, match="one table; give --embedding-bits"):
        model_units(model, head_bits=8)
