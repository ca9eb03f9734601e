"""The text-guided mixture of language experts (paper, §3.3, Eq. 2–5).

    h  = softmax(H_cls · Tᵀ / √C) · T     Eq. 2: the class token asks the prompt's word embeddings; where there is
                                          none (SigLIP, LLaVA), the mean of the patches
    P  = softmax(W_r h)                   Eq. 3
    M  = Σᵢ P[i] · Eᵢ(H)                  Eq. 4: dense, every expert is computed
    G  = H + α·M                          Eq. 5 ("paper")   |   M + α·H  ("released")

All experts of a kind are stored as one stacked tensor per projection, so that Eq. 4 is two wide products and not a
loop: the routing weights scale the experts' hidden units, and one product then sums over hidden units and experts.
"""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from .configuration import ParrotConfig

if TYPE_CHECKING:
    from .modeling import ParrotForConditionalGeneration


class ExpertInput(nn.Module):
    """One Linear per expert on the same input: ``[N, P, C] → [N, P, E, I]``; weight ``[E, I, C]``, bias ``[E, I]``."""

    def __init__(self, experts: int, inputs: int, outputs: int, *, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.flatten()
        stacked = nn.functional.linear(features, self.weight.flatten(0, 1), bias)
        return stacked.unflatten(-1, self.weight.shape[:2])


class ExpertOutput(nn.Module):
    """One Linear per expert on its own input, summed with weights (Eq. 4): ``[N, P, E, I], [N, E] → [N, P, C]``.

    weight ``[E, C, I]``, bias ``[E, C]``.
    """

    def __init__(self, experts: int, inputs: int, outputs: int, *, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    def forward(self, hidden: torch.Tensor, routing: torch.Tensor) -> torch.Tensor:
        routing = routing.to(hidden.dtype)
        mixed = torch.einsum("npei,eci->npc", hidden * routing[:, None, :, None], self.weight)
        return mixed if self.bias is None else mixed + (routing @ self.bias.to(routing.dtype))[:, None]


class MLPExperts(nn.Module):
    """The paper's experts: Linear, SiLU, Linear, with biases."""

    def __init__(self, config: ParrotConfig):
        super().__init__()
        experts, width, inner = config.num_experts, config.text_config.hidden_size, config.expert_intermediate_size
        self.fc1 = ExpertInput(experts, width, inner, bias=True)
        self.fc2 = ExpertOutput(experts, inner, width, bias=True)

    def forward(self, features: torch.Tensor, routing: torch.Tensor) -> torch.Tensor:
        """M of Eq. 4: ``[N, P, C], [N, E] → [N, P, C]``."""
        return self.fc2(nn.functional.silu(self.fc1(features)), routing)


class SwiGLUExperts(nn.Module):
    """The released checkpoints' experts: down(SiLU(gate(x)) · up(x)), bias-free."""

    def __init__(self, config: ParrotConfig):
        super().__init__()
        experts, width, inner = config.num_experts, config.text_config.hidden_size, config.expert_intermediate_size
        self.gate_proj = ExpertInput(experts, width, inner, bias=False)
        self.up_proj = ExpertInput(experts, width, inner, bias=False)
        self.down_proj = ExpertOutput(experts, inner, width, bias=False)

    def forward(self, features: torch.Tensor, routing: torch.Tensor) -> torch.Tensor:
        """M of Eq. 4: ``[N, P, C], [N, E] → [N, P, C]``."""
        return self.down_proj(nn.functional.silu(self.gate_proj(features)) * self.up_proj(features), routing)


EXPERTS = {"mlp": MLPExperts, "swiglu": SwiGLUExperts}


class TextGuidedMoE(nn.Module):
    """Turns projected image features into visual tokens in the light of the prompt (Eq. 2–5).

    An image whose prompt has no text at all (every ``text_mask`` False) asks nothing: h is zero, so P is uniform.
    """

    def __init__(self, config: ParrotConfig):
        super().__init__()
        self.residual, self.alpha = config.residual, config.alpha
        self.class_token = config.keeps_class_token
        self.router = nn.Linear(config.text_config.hidden_size, config.num_experts, bias=False)
        self.experts = EXPERTS[config.expert_kind](config)

    def route(self, query: torch.Tensor, text_embeds: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """P of Eq. 2–3: queries ``[N, C]``, words ``[N, T, C]``, mask bool ``[N, T]`` → float32 ``[N, E]``."""
        text_embeds = text_embeds.to(query.dtype)
        scores = torch.einsum("nc,ntc->nt", query, text_embeds).float() / math.sqrt(query.shape[-1])
        # The lowest finite number and not -inf: a row without any text must not become NaN, in its gradient either.
        scores = scores.masked_fill(~text_mask, torch.finfo(torch.float32).min)
        attention = scores.softmax(dim=-1) * text_mask
        guide = torch.einsum("nt,ntc->nc", attention.to(query.dtype), text_embeds)
        return self.router(guide).float().softmax(dim=-1)

    def forward(
        self, image_features: torch.Tensor, text_embeds: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix the experts for N images, each with its own prompt.

        Args:
            image_features: ``[N, P, C]``, after the projector; row 0 of P is the class token if it is kept.
            text_embeds: ``[N, T, C]``, word embeddings of each image's prompt.
            text_mask: bool ``[N, T]``, True where ``text_embeds`` is the prompt's text.

        Returns:
            visual tokens ``[N, P, C]`` in the dtype of ``image_features``, and the routing P, float32 ``[N, E]``.
        """
        query = image_features[:, 0] if self.class_token else image_features.mean(dim=1)
        routing = self.route(query, text_embeds, text_mask)
        mixed = self.experts(image_features, routing)
        if self.residual == "paper":
            return image_features + self.alpha * mixed, routing
        return mixed + self.alpha * image_features, routing


@torch.no_grad()
def initialise_moe(model: "ParrotForConditionalGeneration", *, seed: int) -> None:
    """Give router and experts fresh random weights: normal with the language model's ``initializer_range``, zero bias.

    The numbers are drawn on the CPU in float32, in the order of the parameters, so that they depend on ``seed`` alone
    and not on device or dtype. Raises ValueError for a model without experts.
    """
    if model.model.moe is None:
        raise ValueError("the model has no experts (num_experts is 0); build it with with_experts first")
    generator = torch.Generator().manual_seed(seed)
    deviation = model.config.text_config.initializer_range
    for name, parameter in model.model.moe.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)


def with_experts(
    model: "ParrotForConditionalGeneration",
    num_experts: int = 6,
    expert_kind: str = "mlp",
    *,
    expert_intermediate_size: int | None = None,
    residual: str = "paper",
    alpha: float = 1.0,
    seed: int = 0,
) -> "ParrotForConditionalGeneration":
    """The LLaVA ``model`` (``num_experts`` 0) with a randomly initialised mixture of experts between projector and LLM.

    The result shares the parameters of ``model``, nothing is copied: keep one of the two. Raises ValueError when
    ``model`` has experts already or ``num_experts`` is below 1.
    """
    if model.model.moe is not None:
        raise ValueError(f"the model has {model.config.num_experts} experts already; give one with num_experts 0")
    if num_experts < 1:
        raise ValueError(f"num_experts is {num_experts}; give 1 or more")
    settings = model.config.to_dict() | {
        "num_experts": num_experts,
        "expert_kind": expert_kind,
        "expert_intermediate_size": expert_intermediate_size,
        "residual": residual,
        "alpha": alpha,
    }
    config = ParrotConfig(**settings)
    result = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    for name in ("num_experts", "expert_kind", "expert_intermediate_size", "residual", "alpha"):
        setattr(result.config, name, getattr(config, name))
    result.model.moe = TextGuidedMoE(config).to(device=model.device, dtype=model.dtype)
    initialise_moe(result, seed=seed)
    return result.train(model.training)


def with_more_experts(
    model: "ParrotForConditionalGeneration", copied: Sequence[int], *, noise: float, seed: int
) -> "ParrotForConditionalGeneration":
    """``model`` with one expert more for each of ``copied``, a copy of the expert of that number.

    A new expert's row of the router is the copied one plus normal noise with ``noise`` times that row's root mean
    square as its deviation, or else two copies of one expert would learn the same for ever. The numbers are drawn on
    the CPU in float32. The result shares all parameters outside of the mixture with ``model``: keep one of the two.

    Raises ValueError when ``model`` has no experts, and IndexError for a number that none of them has.
    """
    if model.model.moe is None:
        raise ValueError("the model has no experts to copy (num_experts is 0); build it with with_experts first")
    shared = {id(parameter): parameter for parameter in model.parameters()}
    result = copy.deepcopy(model, shared)
    result.config.num_experts += len(copied)
    grown = TextGuidedMoE(result.config).to(device=model.device, dtype=model.dtype)
    old, numbers = model.model.moe.state_dict(), torch.tensor(copied, dtype=torch.int64, device=model.device)
    weights = {name: torch.cat([weight, weight[numbers]]) for name, weight in old.items()}
    rows = weights["router.weight"][len(old["router.weight"]) :]
    generator = torch.Generator().manual_seed(seed)
    scale = noise * rows.float().square().mean(dim=1, keepdim=True).sqrt()
    rows += (scale * torch.randn(rows.shape, generator=generator).to(scale)).to(rows.dtype)
    grown.load_state_dict(weights)
    result.model.moe = grown
    return result.train(model.training)
