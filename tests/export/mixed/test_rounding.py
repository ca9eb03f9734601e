"""One unit rounded in torch against onnxruntime's kernels on the graphs that round that unit alone.

All else is float32 on both sides, so what is left is summing in another order, and the few codes that this tips over.
"""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from parrot_export.float32 import float32_logits
from parrot_export.gate import encode
from parrot_export.mixed.rounding import RoundedModel
from parrot_export.mixed.units import fits, model_units
from parrot_export.plan import ORT_CHOICES, ORT_HEAD_CHOICES, plan
from parrot_export.samples import graded_samples
from parrot_runtime.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def asked(source):
    """Two questions, one open and one with options."""
    tokenizer, samples = load_tokenizer(source.tokenizer), graded_samples(2, languages=("tr",))
    return list(encode(tokenizer, source.recipe, source.architecture.vision.tokens, samples))


@pytest.fixture(scope="module")
def model(source):
    return source.load_model()


def alone(unit, choice):
    """float32 everywhere but in ``unit``."""
    exact = plan("fp32")
    kinds = ORT_HEAD_CHOICES if unit.name == "lm_head" else ORT_CHOICES
    if unit.name == "embedding":
        return replace(exact, embedding=choice)
    return replace(exact, components=MappingProxyType({**exact.components, unit.name: kinds[choice]}))


CASES = [
    ("encoder.layers.0.attn", "int8"),
    ("encoder.layers.1.mlp", "int8"),
    ("encoder.projector", "int8"),
    ("experts", "int8"),
    ("experts", "int4"),
    ("decoder.layers.0.attn", "int8"),
    ("decoder.layers.1.attn", "int4"),
    ("decoder.layers.1.mlp", "int4"),
    ("decoder.layers.2.mlp", "int8"),
    ("decoder.layers.2.attn", "int8"),
    ("embedding", "int8"),
    ("lm_head", "int4"),
    ("lm_head", "int8"),
    ("decoder.layers.1.mlp", "float16"),
]


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(("name", "choice"), CASES)
def test_a_unit_rounds_as_its_graph_does(request, source, model, asked, bundle_of, name, choice, calibrated):
    (unit,) = [one for one in model_units(source.architecture) if one.name == name]
    scales = request.getfixturevalue("scales") if calibrated else None
    bundle, _ = bundle_of(source, alone(unit, choice), scales, fits([unit], {name: choice}))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rounded = RoundedModel(model, source, scales)
    for one in asked:
        exact = float32_logits(model, one)
        with rounded.rounding(unit, choice):
            rounded.prompt = len(one.question.ids)
            ours = float32_logits(model, one)
        got = bundle.chain(one.question, one.answer)
        off, cost, size = (np.linalg.norm(each) for each in (got - ours, got - exact, exact))
        # Codes that tip over leave up to 0.12 of the error; other roundings than the kernel's would leave all of it.
        assert off < 0.25 * cost + 1e-5 * size
        assert cost > (1e-6 if choice == "float16" else 1e-4) * size
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    np.testing.assert_array_equal(float32_logits(model, asked[0]), float32_logits(source.load_model(), asked[0]))
