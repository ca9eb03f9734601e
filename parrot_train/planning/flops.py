"""How many floating-point operations a pass over the data takes, part by part; a product of m×k by k×n is 2·m·k·n.

Counted are the matrix products, as torch's flop counter does: everything else is a small share. A backward pass takes
one product for the input's gradient and one for the weight's, where these are asked for: none in the frozen encoder,
inputs' alone in a frozen language model, beside which adapters take both. Attention is counted over whole squares,
though a causal kernel leaves half of them out; its backward pass is 2.5 times its forward pass, because it computes the
scores again (Dao et al. 2022, arXiv 2205.14135, §3.1).
"""

from dataclasses import dataclass

from parrot_train.planning.lengths import Totals
from parrot_train.planning.sizes import Sizes


@dataclass(frozen=True)
class Flops:
    """Operations of the forward pass, the backward pass, and of what gradient checkpointing computes again.

    ``needed`` is what the model's utilisation (MFU) is counted by (Chowdhery et al. 2022, arXiv 2204.02311, appendix
    B): forward and backward pass, nothing twice.
    """

    forward: int
    backward: int
    recomputed: int
    needed: int

    @property
    def total(self) -> int:
        """All that the devices do."""
        return self.forward + self.backward + self.recomputed


def flops(sizes: Sizes, totals: Totals, *, recompute: bool) -> Flops:
    """Of the micro batches that ``totals`` sums up."""
    s = sizes
    positions = totals.images * s.image_tokens
    encoder = totals.images * _encoder(s)
    first, second = 2 * positions * s.vision_width * s.width, 2 * positions * s.width**2
    mixture = _mixture(s, totals, positions)
    # Through the last layer's MLP answer tokens pass alone.
    spared = totals.tokens - totals.answers
    layers = 2 * (totals.tokens * s.layer_weights * s.layers - spared * s.mlp_weights)
    attention = 4 * totals.squares * s.query * s.layers
    output = 2 * totals.answers * s.width * s.vocabulary
    adapters = 2 * (totals.tokens * s.adapter_weights * s.layers - spared * s.mlp_adapter_weights)
    times = 2 if s.language_model_learns else 1
    # The projector's first Linear has no use for its input's gradient: the encoder is frozen.
    products = first + 2 * second + 2 * mixture + times * (layers + output) + 2 * adapters
    # Computing a layer again stops at its last product: nobody needs its result. Where the last layer has an adapter
    # that is the adapter's second.
    last = s.width * (s.lora.rank if "down_proj" in s.adapted else s.inner)
    again = layers + adapters - 2 * (totals.tokens * s.layers - spared) * last + attention
    forward = encoder + first + second + mixture + layers + adapters + attention + output
    return Flops(
        forward=forward,
        backward=products + 5 * attention // 2,
        recomputed=again if recompute else 0,
        needed=forward + products + 2 * attention,
    )


def _encoder(s: Sizes) -> int:
    """Of one image: patches, then per layer four projections, two of the MLP, and attention."""
    patches = s.image_patches * s.patch_numbers * s.vision_width
    layer = s.vision_rows * s.vision_width * (4 * s.vision_width + 2 * s.vision_inner)
    attention = 2 * s.vision_rows**2 * s.vision_width
    return 2 * (patches + s.vision_layers * (layer + attention))


def _mixture(s: Sizes, totals: Totals, positions: int) -> int:
    """The router's look at the words (Eq. 2), its Linear (Eq. 3), and every expert on every position (Eq. 4)."""
    if not s.experts:
        return 0
    router = 4 * totals.router_words * s.width + 2 * totals.images * s.width * s.experts
    bias = 2 * totals.images * s.experts * s.width if s.expert_inputs == 1 else 0
    return router + 2 * positions * (s.expert_inputs + 1) * s.expert_weights + bias
