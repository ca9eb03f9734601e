"""Adapters and four-bit weights on tiny models: against the same sums in float64, and against weights not rounded."""

import copy

import numpy as np
import pytest
import torch

from parrot_train.config import LLM_LINEARS, LoraConfig
from parrot_train.distributed import parameter_count
from parrot_train.model.adapters import MARK, Nf4Linear, add_adapters, plain_name
from parrot_train.model.trainable import set_trainable

from .conftest import pictures, prompts, tiny_model

pytest.importorskip("peft")
BNB = pytest.importorskip("bitsandbytes")
# The values of NF4: Dettmers et al. 2023, appendix E.
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
NF4 += [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
NF4 += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]


def batch():
    """Three samples of 33 positions, of which the second has no picture; labels on the last nine words of each."""
    ids, mask = prompts("5i11", "30", "2i9", length=33)
    labels = torch.full_like(ids, -100)
    for row in range(3):
        end = int(mask[row].sum())
        labels[row, end - 9 : end] = ids[row, end - 9 : end]
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pictures(2), "labels": labels}


def adapted(*, products=torch.float32, tied=True, **settings):
    model = tiny_model(tie_word_embeddings=tied)
    add_adapters(model, LoraConfig(**({"rank": 3, "alpha": 5.0} | settings)), seed=1, products=products)
    set_trainable(model, 2)
    return model


def stir(model):
    """Adapters as after training: B is zero at the start, and nothing would be seen of them."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1, generator=generator)
    return model


def loss_of(model, autocast=False):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return model(**batch()).loss


def test_it_starts_as_the_model_it_was_made_of():
    expected = tiny_model()(**batch()).loss
    assert torch.equal(adapted()(**batch()).loss, expected)


def test_a_layer_adds_the_scaled_product():
    model = stir(adapted())
    layer = model.model.language_model.layers[1].mlp.down_proj
    inputs = torch.randn(3, 33, 40, generator=torch.Generator().manual_seed(4))
    parts = {name: tensor.detach().double() for name, tensor in layer.named_parameters()}
    whole = parts["base_layer.weight"] + 5 / 3 * parts["lora_B.default.weight"] @ parts["lora_A.default.weight"]
    # Sums of 40 products in float32.
    torch.testing.assert_close(layer(inputs).double(), inputs.double() @ whole.T, rtol=1e-5, atol=1e-5)


def test_only_adapters_projector_and_mixture_learn():
    model = stir(adapted())
    loss_of(model).backward()
    for name, parameter in model.named_parameters():
        learns = MARK in name or "multi_modal_projector" in name or ".moe." in name
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name
        if learns:
            assert parameter.grad.abs().sum() > 0, name
    names = {name for name, _ in model.named_parameters() if MARK in name}
    assert len(names) == 2 * 2 * len(LLM_LINEARS)
    assert all(name.startswith("model.language_model.layers.") for name in names)


def test_targets_are_those_asked_for():
    model = adapted(targets=("q_proj", "up_proj"))
    assert {name.split(".")[-4] for name, _ in model.named_parameters() if MARK in name} == {"q_proj", "up_proj"}
    assert plain_name("a.q_proj.lora_A.default.weight") == "a.q_proj.lora_A.weight"
    assert plain_name("model.default.weight") == "model.default.weight"


def test_the_same_seed_gives_the_same_adapters_and_leaves_other_draws_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    model = tiny_model()
    torch.manual_seed(9)
    add_adapters(model, LoraConfig(rank=3), seed=1, products=torch.float32)
    assert torch.equal(torch.rand(3), expected)
    other = adapted()
    for name, parameter in model.named_parameters():
        if MARK in name:
            assert torch.equal(parameter, other.get_parameter(name)), name


@pytest.mark.parametrize("tied", [True, False])
def test_frozen_weights_in_bfloat16_change_no_bit_under_autocast(tied):
    """Each product would round a float32 weight in the same way."""
    exact, held = (stir(adapted(products=products, tied=tied)) for products in (torch.float32, torch.bfloat16))
    types = {name: parameter.dtype for name, parameter in held.named_parameters() if not parameter.requires_grad}
    assert types["model.language_model.layers.0.mlp.up_proj.base_layer.weight"] == torch.bfloat16
    assert types["model.language_model.embed_tokens.weight"] == torch.float32
    assert types.get("lm_head.weight", torch.bfloat16) == torch.bfloat16
    losses = [loss_of(model, autocast=True) for model in (exact, held)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for name, parameter in held.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, exact.get_parameter(name).grad), name


# --- NF4 ------------------------------------------------------------------------------------------------------------
def test_nf4_is_four_bits_and_what_the_scales_take():
    """4 + 8 / 64 + 32 / (64 · 256) bits a number (Dettmers et al. 2023, §3), and two tables of 256 and 16."""
    linear = torch.nn.Linear(512, 320)
    layer = Nf4Linear(linear, torch.float32, torch.device("cpu"))
    held = sum(tensor.nbytes for tensor in (layer.weight, *layer.buffers()))
    numbers = 512 * 320
    assert held == numbers * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 4 * (256 + 16 + 1)
    assert parameter_count(layer.weight) == numbers
    values = (
        layer.dense().detach().double()
        / layer.dense().abs().double().reshape(-1, 64).amax(1).repeat_interleave(64).reshape(320, 512)
    ).unique()
    nearest = np.abs(values.numpy()[:, None] - np.array(NF4)).min(axis=1)
    assert nearest.max() < 1e-6


@pytest.mark.parametrize("autocast", [False, True])
def test_an_nf4_layer_is_the_product_with_its_own_weight(autocast):
    linear = torch.nn.Linear(40, 24)
    layer = Nf4Linear(linear, torch.bfloat16 if autocast else torch.float32, torch.device("cpu"))
    plain = copy.deepcopy(linear)
    plain.weight.data = layer.dense().float()
    assert (plain.weight - linear.weight).abs().max() > 1e-3
    one, two = (torch.randn(3, 33, 40, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        results = layer(one), plain(two)
    assert results[0].dtype == results[1].dtype == (torch.bfloat16 if autocast else torch.float32)
    assert torch.equal(*results)
    for result in results:
        result.square().sum().backward()
    assert torch.equal(one.grad, two.grad)
    assert layer.weight.grad is None


def test_all_of_the_layers_are_quantised_and_nothing_else():
    model = adapted(quantize="nf4", targets=("q_proj",), tied=False)
    layers = [name for name, module in model.named_modules() if isinstance(module, Nf4Linear)]
    assert len(layers) == 2 * len(LLM_LINEARS)
    assert all(".layers." in name and "language_model" in name for name in layers)
    assert not any("weight" in name for name, _ in model.named_buffers())
    loss_of(model).backward()
    assert model.model.language_model.layers[0].self_attn.q_proj.lora_B.default.weight.grad.abs().sum() > 0


def test_nf4_weights_are_the_same_after_an_evaluation():
    model = stir(adapted(quantize="nf4"))
    before = {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    first = loss_of(model.train())
    with torch.no_grad():
        loss_of(model.eval())
    assert torch.equal(loss_of(model.train()), first)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert torch.equal(tensor, before[name]), name


def test_training_on_nf4_lowers_the_loss():
    model = adapted(quantize="nf4")
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = loss_of(model)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 1
