"""The loop over tokens: prompts are prefilled into free slots, and all live slots decode together.

One question is the case of one slot, a batch the case of several: the same path, and on the CPU the same tokens.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from parrot_runtime.backends.base import Backend, KVCache
from parrot_runtime.embedding import Embedding
from parrot_runtime.sampling import Sampler
from parrot_runtime.stats import Stats

Finish = Literal["stop", "length"]


@dataclass(eq=False)
class Request:
    """One answer in the making.

    ``inputs_embeds`` ``[T, C]`` is the whole prompt, pictures included; it is None once prefilled, or a long batch
    would keep megabytes per answer. ``length`` is T. ``routing`` is float32 ``[pictures, experts]``. ``limit`` is the
    most tokens the answer may have; T + ``limit`` must fit in a slot. ``tokens`` grows as the answer does, without the
    token that ends it; ``finish`` says why it ended: the model said so, or the limit was reached.
    """

    inputs_embeds: np.ndarray | None
    routing: np.ndarray | None
    sampler: Sampler
    limit: int
    stats: Stats
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.inputs_embeds)

    def take(self, logits: np.ndarray, stop_ids: frozenset[int]) -> bool:
        """Choose the next token; true when it belongs to the answer."""
        token = self.sampler(logits, self.tokens)
        if token in stop_ids:
            self.finish = "stop"
            return False
        self.tokens.append(token)
        self.stats.new_tokens += 1
        if len(self.tokens) == self.limit:
            self.finish = "length"
        return True


def generate(
    requests: Iterable[Request],
    *,
    backend: Backend,
    embedding: Embedding,
    cache: KVCache,
    stop_ids: frozenset[int],
) -> Iterator[tuple[Request, int]]:
    """Yield (request, token) as tokens come; ``requests`` is read only when a slot is free."""
    waiting = iter(requests)
    slots: list[Request | None] = [None] * cache.slots
    while True:
        for slot, live in enumerate(slots):
            while live is None and (request := next(waiting, None)) is not None:
                with request.stats.timed("prefill"):
                    logits = backend.prefill(request.inputs_embeds, cache, slot=slot)
                    taken = request.take(logits, stop_ids)
                request.inputs_embeds = None
                live = slots[slot] = None if request.finish else request
                if taken:
                    yield request, request.tokens[-1]
        if not any(slots):
            return
        for request in _step(slots, backend, embedding, cache, stop_ids):
            yield request, request.tokens[-1]
        slots = [None if request is None or request.finish else request for request in slots]


def _step(
    slots: list[Request | None], backend: Backend, embedding: Embedding, cache: KVCache, stop_ids: frozenset[int]
) -> list[Request]:
    """Decode one token for every live slot; the requests that got one that belongs to their answer."""
    start = time.perf_counter()
    live = [(slot, request) for slot, request in enumerate(slots) if request is not None]
    rows = live[-1][0] + 1
    last, lengths = np.zeros(rows, np.int64), np.zeros(rows, np.int32)
    for slot, request in live:
        last[slot] = request.tokens[-1]
        lengths[slot] = request.length + len(request.tokens) - 1
    logits = backend.decode(embedding.gather(last, backend.embeds_dtype), lengths, cache)
    taken = [request for slot, request in live if request.take(logits[slot], stop_ids)]
    seconds = time.perf_counter() - start
    for _, request in live:
        request.stats.seconds["decode"] += seconds
        request.stats.decode_steps += 1
    return taken
