"""One unit of a torch model rounded as onnxruntime's graphs have it, everything else left in float32.

Weights become what the codes say that the export would write: factors folded in, then codes times scales. What enters
their products is rounded on the way in as the kernels do it: ``DynamicQuantizeMatMul`` to 8 bits by one scale and zero
point for all rows of a call, ``MatMulNBits`` to 8 bits by one scale per row and block.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from parrot_export.architecture import EMBEDDING, HEAD, LLM, side_by_side
from parrot_export.checkpoint import Checkpoint, native_name
from parrot_export.folding import ScaledTensor, folded
from parrot_export.four_bits import FourBits, four_bits, four_bits_of_columns
from parrot_export.mixed.units import Unit, fits
from parrot_export.quantise import Rounding, int4_block, quantised_columns, quantised_rows
from parrot_export.scales import Scales
from parrot_export.slabs import StoredTensor
from parrot_export.weights import Block
from parrot_export.words import eight_bits

if TYPE_CHECKING:
    import torch

    from parrot_train.model import ParrotForConditionalGeneration

_INT8 = Rounding("int8", "float32")


@dataclass
class RoundedModel:
    """A ``model`` in float32 of which one unit at a time is rounded.

    ``prompt`` is how many positions the prompt of the sample at hand has: they enter the decoder in one call, and each
    of an answer's in a call of its own.
    """

    model: "ParrotForConditionalGeneration"
    checkpoint: Checkpoint
    scales: Scales | None
    prompt: int = field(default=0)

    def __post_init__(self) -> None:
        self._parameters = {native_name(name): one for name, one in self.model.named_parameters()}
        self._modules = {native_name(f"{name}.")[:-1]: one for name, one in self.model.named_modules()}

    @contextmanager
    def rounding(self, unit: Unit, choice: str) -> Iterator[None]:
        """Inside, ``unit`` is rounded to ``choice``; afterwards the model is what it was before."""
        import torch

        fitted = fits([unit], {unit.name: choice})
        factors = self.scales.factors(choice) if self.scales and fitted else {}
        view = folded(self.checkpoint, {name: each for name, each in factors.items() if name in fitted})
        names = {f"{module}.weight" for module in unit.modules}
        names |= {name for name, tensor in view.tensors.items() if isinstance(tensor, ScaledTensor)}
        with torch.inference_mode(), ExitStack() as stack:
            saved = {name: self._parameters[name].clone() for name in names}
            try:
                for name in sorted(names):
                    numbers = view.tensors[name].load()
                    if name.removesuffix(".weight") in unit.modules:
                        numbers = _round_trip(view.tensors[name], choice, self.scales)
                    self._parameters[name].copy_(torch.from_numpy(numbers))
                for module in self._rounded_inputs(unit, choice):
                    hook = self._modules[module].register_forward_pre_hook(self._hook(module, choice))
                    stack.callback(hook.remove)
                yield
            finally:
                for name, numbers in saved.items():
                    self._parameters[name].copy_(numbers)

    def _rounded_inputs(self, unit: Unit, choice: str) -> tuple[str, ...]:
        """The modules whose products round what enters them."""
        if choice == "float16":
            return ()
        if unit.modules != (EMBEDDING,):
            return unit.modules
        return (HEAD,) if self.checkpoint.architecture.decoder.tied else ()

    def _hook(self, module: str, choice: str) -> Callable[["torch.nn.Module", tuple], tuple]:
        name = EMBEDDING if module == HEAD and self.checkpoint.architecture.decoder.tied else module
        tensor = self.checkpoint.tensors[f"{name}.weight"]
        block = _block(tensor, choice, self.scales)

        def rounded(values: "torch.Tensor") -> "torch.Tensor":
            if block:
                return _by_blocks(values, block)
            return values if choice == "int4" else self._by_calls(values, module)

        def hook(_module: Any, inputs: tuple) -> tuple:
            if not side_by_side(module):
                return (rounded(inputs[0]), *inputs[1:])
            # The graph's product takes the hidden units weighed by the routing, all experts' side by side.
            hidden, routing = inputs[0], inputs[1].to(inputs[0].dtype)[:, None, :, None]
            weighed = rounded((hidden * routing).flatten(2)).unflatten(2, hidden.shape[2:])
            return (weighed / routing.clamp(min=1e-30), *inputs[1:])

        return hook

    def _by_calls(self, values: "torch.Tensor", module: str) -> "torch.Tensor":
        """``values`` ``[..., T, K]`` in 8 bits by one scale and zero point for the rows of each call."""
        import torch

        if module != HEAD and not module.startswith(f"{LLM}."):
            return _dynamic(values, tuple(range(values.ndim)))
        # Behind the last attention the graph goes on with the last position of a call alone.
        last = f"{LLM}.layers.{self.checkpoint.architecture.decoder.layers - 1}."
        alone = module == HEAD or (module.startswith(last) and not module.endswith(("q_proj", "k_proj", "v_proj")))
        if alone:
            return _dynamic(values, (-1,))
        prompt, answer = values[:, : self.prompt], values[:, self.prompt :]
        parts = [_dynamic(prompt, (0, 1, 2))] + ([_dynamic(answer, (-1,))] if answer.shape[1] else [])
        return torch.cat(parts, dim=1)


def _dynamic(values: "torch.Tensor", axes: tuple[int, ...]) -> "torch.Tensor":
    """DynamicQuantizeLinear of ONNX: codes 0 to 255 over a range that includes zero, one for all of ``axes``."""
    high, low = values.amax(axes, keepdim=True).clamp(min=0), values.amin(axes, keepdim=True).clamp(max=0)
    scale = ((high - low) / 255).clamp(min=1e-30)
    zero = (-low / scale).round().clamp(0, 255)
    return ((values / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def _by_blocks(values: "torch.Tensor", block: int) -> "torch.Tensor":
    """Codes -127 to 127 by one scale per row and ``block`` neighbours."""
    groups = values.unflatten(-1, (-1, block))
    scale = (groups.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
    return ((groups / scale).round() * scale).flatten(-2)


def _block(tensor: StoredTensor, choice: str, scales: Scales | None) -> int | None:
    """How many numbers along K share a scale in the kernel that takes ``tensor``; None for one without blocks."""
    side = side_by_side(tensor.name.removesuffix(".weight"))
    columns = tensor.shape[0] * tensor.shape[2] if side else tensor.shape[-1]
    if choice == "int8":
        return int4_block(columns) if tensor.name.startswith((EMBEDDING, HEAD)) else None
    calibrated = scales.int4_block(f"{tensor.name}.columns" if side else tensor.name) if scales else None
    return calibrated or int4_block(columns)


def _round_trip(tensor: StoredTensor, choice: str, scales: Scales | None) -> np.ndarray:
    """``tensor`` in float32 as its codes, or its numbers in float16, have it; its own shape."""
    module, block = tensor.name.removesuffix(".weight"), _block(tensor, choice, scales)
    side = side_by_side(module)
    if choice == "float16" or (choice == "int4" and block is None):
        return tensor.load().astype(np.float16).astype(np.float32)
    if choice == "int4":
        numbers = _numbers((four_bits_of_columns if side else four_bits)(tensor, block, scales), 4)
    elif module in (EMBEDDING, HEAD) and (block or module == EMBEDDING):
        numbers = _numbers((*eight_bits(tensor, block or tensor.shape[-1]), None), 8)
    else:
        codes, steps = (_read(part) for part in (quantised_columns if side else quantised_rows)(tensor, _INT8))
        numbers = codes.astype(np.float32) * steps[:, None]
    if side:
        experts, outputs, inner = tensor.shape
        return np.ascontiguousarray(numbers.reshape(outputs, experts, inner).transpose(1, 0, 2))
    return numbers.reshape(tensor.shape)


def _numbers(blocks: FourBits, bits: int) -> np.ndarray:
    """float32 ``[N, K]`` of codes without a sign, around zero points or the middle."""
    codes, scales = _read(blocks[0]), _read(blocks[1]).astype(np.float32)
    if bits == 4:
        codes = _unpacked(codes)
    groups = codes.astype(np.float32).reshape(*scales.shape, -1)
    zeros = np.float32(1 << (bits - 1))
    if blocks[2] is not None:
        zeros = _unpacked(_read(blocks[2]))[:, : scales.shape[1], None].astype(np.float32)
    return ((groups - zeros) * scales[..., None]).reshape(codes.shape)


def _unpacked(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes & 0xF, codes >> 4], axis=-1).reshape(len(codes), -1)


def _read(block: Block) -> np.ndarray:
    return np.concatenate(list(block.chunks())).astype(block.dtype, copy=False).reshape(block.shape)
