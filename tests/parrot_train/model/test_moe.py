"""The mixture against Eq. 2–5 in float64 numpy."""

import numpy as np
import pytest
import torch

from parrot_train.model.moe import TextGuidedMoE, with_experts

from .conftest import tiny_config, tiny_model
from .reference import mixture


@pytest.mark.parametrize("kind", ["mlp", "swiglu"])
@pytest.mark.parametrize("residual", ["paper", "released"])
def test_equations(kind, residual):
    torch.manual_seed(1)
    moe = TextGuidedMoE(tiny_config(expert_kind=kind, residual=residual)).double()
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    features, words = torch.randn(3, 17, 24).double(), torch.randn(3, 33, 24).double()
    mask = torch.rand(3, 33) < 0.6
    tokens, routing = moe(features, words, mask)
    weights = {name: weight.detach().numpy() for name, weight in moe.experts.named_parameters()}
    for row in range(3):
        expected, shares = mixture(
            weights,
            moe.router.weight.detach().numpy(),
            features[row].numpy(),
            words[row][mask[row]].numpy(),
            residual=residual,
            alpha=0.7,
        )
        # The two softmaxes run in float32 whatever the model's precision: 1e-6 relative, on values near 10.
        np.testing.assert_allclose(routing[row].detach(), shares, atol=1e-6)
        np.testing.assert_allclose(tokens[row].detach(), expected, atol=1e-4)
    assert routing.dtype == torch.float32


def test_a_prompt_without_text_routes_evenly_and_gives_finite_gradients():
    moe = tiny_model().model.moe
    features = torch.randn(2, 17, 24, requires_grad=True)
    tokens, routing = moe(features, torch.randn(2, 5, 24), torch.tensor([[False] * 5, [True] * 5]))
    torch.testing.assert_close(routing[0], torch.full((6,), 1 / 6))
    tokens.sum().backward()
    assert torch.isfinite(features.grad).all()


def test_experts_are_added_to_a_llava_and_nothing_else_changes():
    llava = tiny_model(num_experts=0)
    before = {name: weight.clone() for name, weight in llava.state_dict().items()}
    assert not any("moe" in name for name in before)
    model = with_experts(llava, 5, "swiglu", expert_intermediate_size=9, seed=4)
    after = model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert {name for name in after if "moe" in name} == {
        "model.moe.router.weight",
        *(f"model.moe.experts.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    assert after["model.moe.experts.gate_proj.weight"].shape == (5, 9, 24)
    again = with_experts(tiny_model(num_experts=0), 5, "swiglu", expert_intermediate_size=9, seed=4).state_dict()
    other = with_experts(tiny_model(num_experts=0), 5, "swiglu", expert_intermediate_size=9, seed=5).state_dict()
    assert torch.equal(again["model.moe.router.weight"], after["model.moe.router.weight"])
    assert not torch.equal(other["model.moe.router.weight"], after["model.moe.router.weight"])


def test_experts_are_added_once():
    with pytest.raises(ValueError, match="6 experts already"):
        with_experts(tiny_model())
