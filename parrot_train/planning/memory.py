"""What one rank holds in memory while it trains: the states of the weights, DeepSpeed's buffers, the activations.

States are those of ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, §3 and Figure 1): with N ranks, stage 1 gives each
a share of the optimiser's state, stage 2 of the gradients too, stage 3 of the weights too. Activations are counted
tensor by tensor as Korthikanti et al. 2022 (arXiv 2205.05198, §4.1) count a transformer's, but of the layers that are
trained here: RMSNorm in float32, SwiGLU, grouped keys, attention that keeps no scores (FlashAttention), a projector and
a mixture before them, and logits of answer tokens alone. All numbers are bytes.
"""

from dataclasses import dataclass

from parrot_train.config import StageConfig
from parrot_train.planning.lengths import Batch
from parrot_train.planning.sizes import Sizes

ZERO_STAGES = (0, 1, 2, 3)
# DeepSpeed's defaults, in numbers: what it reduces at once, and what ZeRO 3 gathers of the weights.
REDUCE_BUCKET = 500_000_000
LIVE_PARAMETERS = 1_000_000_000
SUB_GROUP = 1_000_000_000


# Four bits, and per block of 64 a scale of eight, and per 256 of these one of 32 (Dettmers et al. 2023, §3).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8


@dataclass(frozen=True)
class Formats:
    """Bytes of a number: weight, gradient and optimiser's state (of a trained one), products, the stream they add to.

    Without DeepSpeed weights are float32 and ``autocast`` rounds them for every product; with it they are bfloat16 and
    the optimiser has float32 copies.
    """

    weight: int
    gradient: int
    optimiser: int
    product: int
    stream: int
    autocast: bool


def formats(precision: str, zero: int) -> Formats:
    """How ``stage.precision`` is kept under a ZeRO stage; 0 is no DeepSpeed."""
    optimiser = 12 if zero else 8  # AdamW's two moments, and DeepSpeed's own copy of the weights, float32
    if precision == "fp32":
        return Formats(4, 4, optimiser, 4, 4, autocast=False)
    return Formats(2, 2, optimiser, 2, 2, autocast=False) if zero else Formats(4, 4, optimiser, 2, 4, autocast=True)


@dataclass(frozen=True)
class Memory:
    """One rank's bytes. ``activations`` is what stands beside the states when most does; ``step`` is the float32
    gradient DeepSpeed makes of its share while the optimiser steps, when no activations are there."""

    weights: int
    gradients: int
    optimiser: int
    buffers: int
    activations: int
    step: int

    @property
    def total(self) -> int:
        """The most at any time."""
        return self.weights + self.gradients + self.optimiser + self.buffers + max(self.activations, self.step)


def rank_memory(sizes: Sizes, stage: StageConfig, zero: int, ranks: int, batch: Batch) -> Memory:
    """What a rank holds with ``stage``'s precision and checkpointing, under a ZeRO stage, on its largest batch."""
    form = formats(stage.precision, zero)
    shares = [ranks if zero >= least else 1 for least in (1, 2, 3)]
    every, trained = sizes.trained + sizes.frozen, sizes.trained
    return Memory(
        weights=-(-(form.weight * every - _spared(sizes, form)) // shares[2]),
        gradients=-(-form.gradient * trained // shares[1]),
        optimiser=-(-form.optimiser * trained // shares[0]),
        buffers=_buffers(form, zero, ranks, every, trained),
        activations=Activations(sizes, form, batch, recompute=stage.gradient_checkpointing).peak,
        step=0 if form.gradient == 4 else 4 * min(-(-trained // ranks), SUB_GROUP if zero == 3 else trained),
    )


def _spared(s: Sizes, form: Formats) -> int:
    """What frozen weights of a language model with adapters take less than ``form.weight``: held for the products."""
    if not s.lora:
        return 0
    head = 0 if s.tied else s.vocabulary * s.width
    linear = NF4_BYTES if s.lora.quantize == "nf4" else form.product
    return int(head * (form.weight - form.product) + s.layers * s.layer_weights * (form.weight - linear))


def _buffers(form: Formats, zero: int, ranks: int, every: int, trained: int) -> int:
    """What is there for the ranks to talk: torch's gradient buckets, or DeepSpeed's, and the weights ZeRO 3 gathers."""
    if zero == 0:
        return form.gradient * trained if ranks > 1 else 0
    buckets = form.gradient * REDUCE_BUCKET
    return buckets + (form.weight * min(every, LIVE_PARAMETERS) if zero == 3 else 0)


@dataclass(frozen=True)
class Activations:
    """What one micro batch leaves in memory for the backward pass, part by part, and at its worst moment.

    With ``recompute`` (gradient checkpointing) a layer of the language model keeps its input alone, and one layer at a
    time is computed again. The frozen vision encoder keeps nothing.
    """

    sizes: Sizes
    form: Formats
    batch: Batch
    recompute: bool

    @property
    def tokens(self) -> int:
        """Positions of the language model, padding included."""
        return self.batch.rows * self.batch.length

    @property
    def projector(self) -> int:
        """Its input, and both sides of its activation."""
        s, positions = self.sizes, self.batch.images * self.sizes.image_tokens
        kept = self.form.product * positions * (s.vision_width + 2 * s.width)
        return kept + (2 * s.width**2 if self.form.autocast else 0)

    @property
    def mixture(self) -> int:
        """Its input, the words that the router reads, and what every expert has inside.

        An ``mlp`` keeps its hidden units before and after SiLU and times their routing; SwiGLU both gates and their
        product too. The sum over experts is one product with a copy of their weights in another order.
        """
        s, form = self.sizes, self.form
        if not s.experts:
            return 0
        positions = self.batch.images * s.image_tokens
        inside = {1: 3, 2: 5}[s.expert_inputs] * positions * s.experts * s.expert_inner
        words = self.batch.images * self.batch.length * s.width
        copies = form.product + (2 * s.expert_inputs if form.autocast else 0)
        return form.product * (inside + positions * s.width + words) + copies * s.expert_weights

    @property
    def layer(self) -> int:
        """One layer of the language model, where nothing is computed again."""
        return self.tokens * (self._attention + self._mlp) + self._rounded

    @property
    def last_layer(self) -> int:
        """The last one, through whose MLP answer tokens pass alone."""
        return self.tokens * self._attention + self.batch.answers * self._mlp + self._rounded

    @property
    def _rounded(self) -> int:
        s = self.sizes
        return 2 * (s.adapter_weights if s.lora else s.layer_weights) if self.form.autocast else 0

    @property
    def _norm(self) -> int:
        """Of one position: what a norm of the stream keeps, which is computed in float32."""
        s, form, learns = self.sizes, self.form, self.sizes.language_model_learns
        return 4 * s.width + 4 + learns * form.stream * s.width

    @property
    def _attention(self) -> int:
        """Of one position: a layer's norm, attention and projections."""
        s, form, learns = self.sizes, self.form, self.sizes.language_model_learns
        norms = self._norm
        if s.qk_norm:
            width, heads = s.query + s.key, s.heads + s.key_heads
            norms += 4 * width + 4 * heads + learns * form.product * width
        # Autocast rounds the input of each product by itself; else those of one input share it.
        inputs = learns * form.product * s.width * (3 if form.autocast else 1)
        attention = 2 * form.product * (s.query + s.key) + 4 * s.heads  # q, k, v, the result; a sum of every row
        # Attention's result, which o_proj takes, is kept as it is.
        return (
            norms + inputs + attention + self._adapters(("q_proj", "k_proj", "v_proj"), ("o_proj",), kept=("o_proj",))
        )

    @property
    def _mlp(self) -> int:
        """Of one position: a layer's norm and SwiGLU."""
        s, form, learns = self.sizes, self.form, self.sizes.language_model_learns
        inputs = learns * form.product * s.width * (2 if form.autocast else 1)
        inside = form.product * s.inner * (4 if learns else 3)
        return self._norm + inputs + inside + self._adapters(("gate_proj", "up_proj"), ("down_proj",))

    def _adapters(self, *groups: tuple[str, ...], kept: tuple[str, ...] = ()) -> int:
        """Of one position, for the linear layers of ``groups``, each of one input: the inputs of A, those of B, and
        which of A's dropout leaves.

        Autocast rounds the input for each A by itself. Else those of one input share it, and those ``kept`` anyway.
        """
        s, form = self.sizes, self.form
        wide = {name: s.adapted[name][0] for group in groups for name in group if name in s.adapted}
        if not wide:
            return 0
        if form.autocast or s.lora.dropout:
            inputs = sum(wide.values())
        else:
            inputs = sum(max(wide.get(name, 0) for name in group) for group in groups if not set(group) & set(kept))
        dropped = sum(wide.values()) if s.lora.dropout else 0
        return form.product * (inputs + s.lora.rank * len(wide)) + dropped

    @property
    def output(self) -> int:
        """The last norm, and the logits of answer tokens as the loss keeps them: log-probabilities in float32."""
        s, form, learns = self.sizes, self.form, self.sizes.language_model_learns
        norm = self.batch.answers * self._norm
        rounded = form.autocast and (s.tied or not s.lora)
        head = learns * form.product * self.batch.answers * s.width + 2 * s.vocabulary * s.width * rounded
        return norm + head + 4 * self.batch.answers * s.vocabulary

    @property
    def saved(self) -> int:
        """What stands when the forward pass is done."""
        return self.projector + self.mixture + self._layers(self.sizes.layers - 1) + self._last + self.output

    @property
    def _last(self) -> int:
        return self._layers(1) if self.recompute else self.last_layer

    def _layers(self, count: int) -> int:
        """What ``count`` whole layers keep: their inputs alone, where they are computed again."""
        return count * (self.form.stream * self.tokens * self.sizes.width if self.recompute else self.layer)

    @property
    def peak(self) -> int:
        """The most at any time of forward and backward pass, the gradients of weights on their way included."""
        moments = (self._at_loss, self._at_output, self._at_last_layer, self._at_layer_before)
        return max(*moments, self._at_mixture, self._after_forward)

    @property
    def _logits(self) -> int:
        return self.batch.answers * self.sizes.vocabulary

    @property
    def _at_loss(self) -> int:
        """Beside the log-probabilities stand their gradient and that of the logits, float32."""
        return self.saved + 8 * self._logits

    @property
    def _at_output(self) -> int:
        """The output layer's own gradient, before it is added to what has been gathered."""
        s, form = self.sizes, self.form
        fresh = s.vocabulary * s.width * s.language_model_learns * (form.gradient + 2 * form.autocast)
        return self.saved - (4 - form.product) * self._logits + fresh

    @property
    def _at_last_layer(self) -> int:
        """Inside its attention: the gradients of the stream, of its result, and of queries, keys and values."""
        s, form = self.sizes, self.form
        flowing = self.tokens * (2 * form.product * (s.query + s.key) + form.stream * s.width)
        again = self.last_layer if self.recompute else 0
        return self.saved - self.output + again + flowing

    @property
    def _at_layer_before(self) -> int:
        """The first whole one. Inside SwiGLU: the gradients of both its factors and of their product, which is gone,
        and the stream's."""
        s, form = self.sizes, self.form
        if s.layers == 1:
            return 0
        factors = 2 if s.language_model_learns else 3  # frozen weights have no use for the product in the first place
        if "down_proj" in s.adapted:  # which keeps it; under autocast its gradient comes by way of float32
            factors = 4 if form.autocast else 2
        flowing = self.tokens * (factors * form.product * s.inner + form.stream * s.width)
        again = self.layer if self.recompute else 0
        dense = form.product * s.width * s.inner if s.lora and s.lora.quantize == "nf4" else 0
        return self.saved - self.output - self._last + again + flowing + dense

    @property
    def _at_mixture(self) -> int:
        """Inside the experts: the gradients of their hidden units, and of a projection's weights in both orders."""
        s, form = self.sizes, self.form
        units = self.batch.images * s.image_tokens * s.experts * s.expert_inner
        fresh = (form.product + form.gradient) * s.expert_weights
        stream = form.stream * self.tokens * s.width
        return self.projector + self.mixture + stream + 2 * form.product * units + fresh

    @property
    def _after_forward(self) -> int:
        """Autocast keeps every rounded copy of a trained weight until the forward pass ends."""
        s, form = self.sizes, self.form
        if not (form.autocast and self.recompute and (s.language_model_learns or s.lora)):
            return self.saved
        rounded = s.adapter_weights if s.lora else s.layer_weights
        return self.saved - 2 * self._logits + 2 * s.layers * rounded
