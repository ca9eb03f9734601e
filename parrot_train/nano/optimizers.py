"""How nano's backbones are optimised: Muon for matrices, AdamW for the rest, rates on a cosine."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Rates:
    """Learning rates: Muon's for the matrices of the layers, AdamW's for the rest (for all where there is no Muon)."""

    adamw: float
    muon: float | None
    warmup: int
    weight_decay: float = 0.01


def optimizers(model: nn.Module, rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, kernels and vectors; without Muon, AdamW for all.

    docs/nano.md has what each of them reached.
    """
    muon = {name for name, p in model.named_parameters() if rates.muon and p.ndim == 2 and "embed" not in name}
    others = [p for name, p in model.named_parameters() if name not in muon]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, rates.adamw, betas=(0.9, 0.98), weight_decay=rates.weight_decay, fused=True)
    ]
    if muon:
        matrices = [p for name, p in model.named_parameters() if name in muon]
        made.append(torch.optim.Muon(matrices, rates.muon, momentum=0.95, weight_decay=rates.weight_decay))
    return made


class Pace:
    """Sets the learning rates of ``optimizers(model, rates)``: a linear warm-up times what the step asks for."""

    def __init__(self, model: nn.Module, rates: Rates) -> None:
        self.optimizers, self._warmup, self._steps = optimizers(model, rates), rates.warmup, 0
        self._rates = [[group["lr"] for group in each.param_groups] for each in self.optimizers]

    def step(self, scale: float = 1.0) -> None:
        """One step of all optimizers at ``scale`` times their learning rates."""
        self._steps += 1
        scale *= min(1.0, self._steps / self._warmup)
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            optimizer.step()


def schedule(step: int, steps: int) -> float:
    """A cosine from 1 to a hundredth."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
