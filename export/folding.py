"""Factors that move between the inputs of products and what makes those inputs, without changing what is computed.

A product x·Wᵀ is also (x / s)·(W · s)ᵀ for any positive s per input channel. Where x comes out of a norm, or out of
another product without a nonlinearity between, the division is done beforehand: in the norm's weights, or in the rows
of the product before. Such a place is a ``Site``. A ``folded`` checkpoint computes what the plain one does, and rounds
otherwise; it is a view, whose tensors are scaled while they are read, a few MiB at a time.

What cannot take a factor: what enters a nonlinearity (CLIP's fc2, the projector, experts of the ``mlp`` kind), and the
output layer where it is the word embeddings too.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from parrot_export.architecture import HEAD, LLM, MOE, VISION, Architecture, Decoder
from parrot_export.checkpoint import Checkpoint
from parrot_export.slabs import StoredTensor
from parrot_runtime.errors import InputError


@dataclass(frozen=True)
class Site:
    """One input of products that can be divided by a factor per channel.

    product: the module by whose name a graph knows this input (``GraphWriter.products``).
    weights: the matrices that read it, whose columns are multiplied.
    divided: what makes it: vectors, or matrices whose rows are divided.
    channels: how many factors there are.
    spread: int64 ``[K]``, the factor of each input channel, where channels share one (grouped-query attention).
    """

    product: str
    weights: tuple[str, ...]
    divided: tuple[str, ...]
    channels: int
    spread: np.ndarray | None = None

    def shared(self, statistic: np.ndarray) -> np.ndarray:
        """``[K]`` → ``[channels]``: the largest among the input channels that share a factor."""
        if self.spread is None:
            return statistic
        largest = np.zeros(self.channels, statistic.dtype)
        np.maximum.at(largest, self.spread, statistic)
        return largest

    def spread_out(self, factors: np.ndarray) -> np.ndarray:
        """``[channels]`` → ``[K]``."""
        return factors if self.spread is None else factors[self.spread]


def fold_sites(model: Architecture) -> dict[str, Site]:
    """Every site of ``model`` by its product, in the order of the graphs."""
    sites: list[Site] = []
    for number in range(model.vision.layers_used):
        layer, width = f"{VISION}.encoder.layers.{number}", model.vision.width
        parts = [f"{layer}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")]
        sites += [
            Site(parts[0], _weights(*parts[:3]), _norm(f"{layer}.layer_norm1"), width),
            Site(parts[3], _weights(parts[3]), (f"{parts[2]}.weight", f"{parts[2]}.bias"), width),
            Site(f"{layer}.mlp.fc1", _weights(f"{layer}.mlp.fc1"), _norm(f"{layer}.layer_norm2"), width),
        ]
    if model.experts and model.experts.kind == "swiglu":
        up, down = f"{MOE}.experts.up_proj", f"{MOE}.experts.down_proj"
        sites.append(Site(down, _weights(down), _weights(up), model.experts.count * model.experts.inner))
    for number in range(model.decoder.layers):
        sites += _decoder_sites(f"{LLM}.layers.{number}", model.decoder)
    if not model.decoder.tied:
        sites.append(Site(HEAD, _weights(HEAD), (f"{LLM}.norm.weight",), model.decoder.width))
    return {site.product: site for site in sites}


def _decoder_sites(layer: str, decoder: Decoder) -> list[Site]:
    queries, keys, values, output = (f"{layer}.self_attn.{part}_proj" for part in "qkvo")
    gate, up, down = (f"{layer}.mlp.{part}_proj" for part in ("gate", "up", "down"))
    head, width = decoder.head_dim, decoder.kv_heads * decoder.head_dim
    # What leaves the attention are sums of values: a query head's channels are those of the values it reads.
    group = decoder.heads // decoder.kv_heads
    spread = (np.arange(decoder.heads)[:, None] // group * head + np.arange(head)).reshape(-1)
    made = (f"{values}.weight", *((f"{values}.bias",) if decoder.qkv_bias else ()))
    return [
        Site(queries, _weights(queries, keys, values), (f"{layer}.input_layernorm.weight",), decoder.width),
        Site(output, _weights(output), made, width, None if group == 1 else spread),
        Site(gate, _weights(gate, up), (f"{layer}.post_attention_layernorm.weight",), decoder.width),
        Site(down, _weights(down), _weights(up), decoder.inner),
    ]


def _weights(*modules: str) -> tuple[str, ...]:
    return tuple(f"{module}.weight" for module in modules)


def _norm(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


@dataclass(frozen=True)
class ScaledTensor(StoredTensor):
    """``source`` in float32, its rows times ``rows`` and its columns times ``columns``; no slab, as it stands nowhere.

    ``rows`` is float32, one number for each row of the last axis (of a vector, for each element); ``columns`` one for
    each column, for experts' ``[E, C, I]`` flat ``[E·I]``.
    """

    source: StoredTensor | None = None
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    def chunks(self) -> Iterator[np.ndarray]:
        """See ``StoredTensor.chunks``."""
        if len(self.shape) == 1:
            numbers = self.source.load()
            yield numbers if self.rows is None else numbers * self.rows
            return
        yield from (chunk.reshape(-1) for chunk in self.row_chunks())

    def row_chunks(self) -> Iterator[np.ndarray]:
        """See ``StoredTensor.row_chunks``."""
        first = 0
        per_expert = self.shape[1] if len(self.shape) == 3 else None
        for chunk in self.source.row_chunks():
            scaled, places = chunk.astype(np.float32), np.arange(first, first + len(chunk))
            if self.rows is not None:
                scaled *= self.rows[places, None]
            if self.columns is not None:
                stack = self.columns.reshape(-1, self.shape[-1])
                scaled *= stack[places // per_expert if per_expert else np.zeros_like(places)]
            first += len(chunk)
            yield scaled

    def column_chunks(self) -> Iterator[np.ndarray]:
        """See ``StoredTensor.column_chunks``; of a stack whose columns alone are scaled."""
        if self.rows is not None:
            raise ValueError(f"{self.name}: a stack laid side by side has no rows of its own to scale")
        width = self.shape[0] * self.shape[2]
        for chunk in self.source.column_chunks():
            scaled = chunk.astype(np.float32).reshape(-1, width)
            yield (scaled if self.columns is None else scaled * self.columns).reshape(-1)


def folded(checkpoint: Checkpoint, factors: Mapping[str, np.ndarray]) -> Checkpoint:
    """``checkpoint`` with the inputs of its sites divided by ``factors``, float32 ``[channels]`` by product.

    Raises InputError for a product that is no site of this model, and for factors of another number or not positive.
    """
    sites = fold_sites(checkpoint.architecture)
    rows: dict[str, np.ndarray] = {}
    columns: dict[str, np.ndarray] = {}
    for product, numbers in factors.items():
        site = sites.get(product)
        if site is None or numbers.shape != (site.channels,) or not (np.isfinite(numbers) & (numbers > 0)).all():
            expected = f"{site.channels} positive factors" if site else "one of the model's norms and products"
            raise InputError(f"{product}: its factors do not fit; expected {expected}; calibrate again")
        for name in site.weights:
            columns[name] = site.spread_out(numbers).astype(np.float32)
        for name in site.divided:
            rows[name] = (1 / numbers).astype(np.float32)
    tensors = dict(checkpoint.tensors)
    for name in rows.keys() | columns.keys():
        source = tensors[name]
        tensors[name] = ScaledTensor(
            name, np.dtype(np.float32), source.shape, (), source, rows.get(name), columns.get(name)
        )
    return dataclasses.replace(checkpoint, tensors=tensors)
