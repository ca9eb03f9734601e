"""LoRA: low-rank adapters beside the language model's frozen linear layers, whose weights may be held in four bits.

A layer computes W·x + s·B·A·x with A ``[r, in]``, B ``[out, r]`` and s = alpha / r (Hu et al. 2021, arXiv 2106.09685,
§4.1). A starts random and B at zero, so that training starts at the model as it was. With ``nf4`` W is held as QLoRA
does: four bits a number, blocks of 64, their scales in eight bits (Dettmers et al. 2023, arXiv 2305.14314, §3).

What is frozen is held as the products need it. Under autocast that is bfloat16, to which every product would round a
float32 weight anyway: the results have the same bits, in half the memory. Nothing of this is ever saved: see
``parrot_train.lora``.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from parrot_train.config import LoraConfig
    from parrot_train.model import ParrotForConditionalGeneration

MARK = ".lora_"
"""In the name of every tensor of an adapter, and of no other."""
_NAME = "default"  # peft's own name for the only adapter


def add_adapters(
    model: "ParrotForConditionalGeneration", lora: "LoraConfig", *, seed: int, products: torch.dtype
) -> None:
    """Give ``lora.targets`` of the language model adapters (float32), and hold its frozen weights for ``products``.

    ``products`` is the type that training multiplies in, bfloat16 under autocast. Word embeddings and norms stay as
    they are, and so does an output layer that is tied to the embeddings. The same ``seed`` gives the same A.
    """
    import peft

    llm = model.model.language_model
    frozen = [module for module in llm.modules() if isinstance(module, nn.Linear)]
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, llm, _NAME)
    if not model.config.tie_word_embeddings:
        _hold(model.lm_head, products)
    if lora.quantize == "nf4":
        _quantize(llm, {id(module) for module in frozen}, products)
    else:
        for module in frozen:
            _hold(module, products)


def _hold(module: nn.Linear, dtype: torch.dtype) -> None:
    module.weight.data = module.weight.data.to(dtype)


def _quantize(llm: nn.Module, frozen: set[int], products: torch.dtype) -> None:
    """Put an Nf4Linear in the place of each frozen layer, one after the other, on the device that trains."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for parent in list(llm.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in frozen:
                setattr(parent, name, Nf4Linear(child, products, device))


def plain_name(name: str) -> str:
    """A parameter's name without peft's name for the adapter: ``….q_proj.lora_A.weight``."""
    return name.replace(f".{_NAME}.", ".") if MARK in name else name


class Nf4Linear(nn.Module):
    """A frozen linear layer with its weight in NF4, two numbers to a byte, which become ``products`` for each use.

    By bitsandbytes' kernels, but not its ``Linear4bit``: that one packs its weights anew when it is asked something in
    eval mode on a CPU, and gives its result in the type of its input, which under autocast is float32.
    """

    def __init__(self, linear: nn.Linear, products: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.in_features, self.out_features, self.products = linear.in_features, linear.out_features, products
        packed, state = _kernels().quantize_4bit(
            linear.weight.data.to(device), blocksize=64, compress_statistics=True, quant_type="nf4"
        )
        # A parameter, so that it is counted as one; whole numbers cannot learn.
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias
        for name, tensor in (
            ("scales", state.absmax),  # uint8 [blocks]
            ("scales_code", state.state2.code),
            ("scales_scales", state.state2.absmax),  # float32 [blocks / 256]
            ("scales_mean", state.offset),
            ("code", state.code),
        ):
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``[…, in]`` → ``[…, out]``, in the type of the products under autocast and of ``inputs`` without."""
        kind = inputs.device.type
        if torch.is_autocast_enabled(kind):
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return _FrozenProduct.apply(inputs, bias, self)

    def dense(self) -> torch.Tensor:
        """The weight as it is multiplied by: ``[out, in]`` in ``products``."""
        functional = _kernels()
        inner = functional.QuantState(self.scales_scales, code=self.scales_code, blocksize=256, dtype=torch.float32)
        state = functional.QuantState(
            self.scales,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.code,
            blocksize=64,
            quant_type="nf4",
            dtype=self.products,
            offset=self.scales_mean,
            state2=inner,
        )
        return functional.dequantize_4bit(self.weight.data, state)


class _FrozenProduct(torch.autograd.Function):
    """x·Wᵀ + b with a gradient for x alone; W is made again for it instead of being kept."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, bias: torch.Tensor | None, layer: Nf4Linear) -> torch.Tensor:
        ctx.layer = layer
        return nn.functional.linear(inputs, layer.dense().to(inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        return gradient @ ctx.layer.dense().to(gradient.dtype), None, None


def _kernels() -> Any:
    import bitsandbytes.functional

    return bitsandbytes.functional
