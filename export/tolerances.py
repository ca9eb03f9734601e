"""How far a bundle's numbers may lie from the checkpoint's in torch, by precision, and why so far."""

from dataclasses import dataclass

from parrot_runtime.manifest import Manifest


@dataclass(frozen=True)
class Tolerance:
    """What is allowed, as a share of the largest value of the tensor in torch (of 1 for the routing).

    ``relative`` bounds the error of every value. ``tie`` is how far torch's logits of two tokens may lie apart for the
    bundle to choose the other one; it is closer than what ``relative`` alone would let through. ``mixture`` bounds the
    error of what the experts add to the features, as a share of the largest addition: they are a few hundredths of the
    visual tokens, whose own bound would let all of them be missing. ``routing`` bounds the experts' shares: the router
    is not rounded with the weights, so only the type of its products counts.
    """

    relative: float
    tie: float
    reason: str
    mixture: float = 0.5
    routing: float = 1e-2

    def of(self, tensor: str) -> float:
        """What is allowed of ``tensor``."""
        return {"mixture": self.mixture, "routing": self.routing}.get(tensor, self.relative)


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        1e-4,
        1e-4,
        "the same float32 numbers summed in another order: about 1e-6 per layer, and room for deep models",
        mixture=1e-2,
        routing=1e-4,
    ),
    "fp16": Tolerance(
        2e-2,
        5e-3,
        "weights rounded to 11 bits against float32 ones; measured 4e-4 on nano and 1.2e-2 on random weights",
        mixture=0.1,
    ),
    "int8": Tolerance(0.25, 0.1, "weights and inputs of products on 8 bits; measured 0.05 in nano's logits"),
    "int4": Tolerance(
        0.25, 0.1, "the language model's weights on 4 bits, all else on 8; measured 0.17 in nano's logits"
    ),
    "mixed": Tolerance(0.25, 0.1, "weights on 4, 8 or 16 bits, part by part; the gate judges what that costs"),
}
# What a precision of 16 bits or more allows where word embeddings or output layer are on 8.
_EIGHT_BITS = Tolerance(0.25, 0.1, "word embeddings or the output layer on 8 bits")

# TensorRT's presets round more: what enters products is float16 too, or has 8 bits by scales fixed on a few samples.
TENSORRT_TOLERANCES: dict[str, Tolerance] = {
    "fp32": TOLERANCES["fp32"],
    "fp16": Tolerance(
        3e-2,
        1e-2,
        "products on 11 bits against float32 ones; measured on nano 6e-4 in the features and 4e-4 in the logits, and "
        "1.4e-2 on random weights",
        mixture=0.1,
    ),
    "bf16": Tolerance(1e-1, 1e-1, "products on 8 bits against float32 ones", routing=5e-2),
    "int8": Tolerance(0.25, 0.1, "weights and inputs of products on 8 bits; measured 0.11 in nano's logits"),
    "int4": Tolerance(0.25, 0.1, "weights on 4 bits; measured 0.10 in nano's logits"),
    "fp8": Tolerance(0.25, 0.1, "weights and inputs of products on 4 significant bits; measured 0.11 in nano's logits"),
}


def tolerance_of(known: dict[str, Tolerance], manifest: Manifest) -> Tolerance:
    """What ``known`` allows a bundle of this precision, and of these units beside it."""
    allowed = known[manifest.precision]
    if manifest.precision == "fp32" and "float16" in manifest.units.values():  # of the words or the output layer
        allowed = known["fp16"]
    rounded = "int8" in manifest.units.values() and allowed.relative < _EIGHT_BITS.relative
    return _EIGHT_BITS if rounded else allowed
