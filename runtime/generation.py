"""The loop over tokens: prompts are prefilled into free slots, and all live slots decode together.

One question is the case of one slot, a batch or a server that of several: the same path, and on the CPU the same
tokens. A slot keeps what it held: a prompt that begins like the one before it (the system's text, the picture, the
turns so far) is prefilled from where they part, and what another slot holds of it is copied. While other answers are
being decoded a prompt is prefilled in chunks, so that none of them waits longer than for one. An answer that is alone
may take several tokens in one step.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from parrot_runtime.backends.base import Backend, KVCache
from parrot_runtime.embedding import Embedding
from parrot_runtime.lookup import Lookup
from parrot_runtime.stats import Stats

Finish = Literal["stop", "length", "cancelled"]
# From logits float32 ``[vocab]`` and the answer's tokens so far to the next one.
Chooser = Callable[[np.ndarray, Sequence[int]], int]
# The longest answer, where nothing else is asked for.
MAX_NEW_TOKENS = 512
# Positions of a prompt that are prefilled between two steps of the others.
CHUNK = 128


@dataclass(eq=False)
class Request:
    """One answer in the making.

    ``inputs_embeds`` ``[T, C]`` is the whole prompt, pictures included; it is None once prefilled, or a long batch
    would keep megabytes per answer. ``length`` is T. ``routing`` is float32 ``[pictures, experts]``. ``limit`` is the
    most tokens the answer may have; T + ``limit`` must fit in a slot. ``tokens`` grows as the answer does, without the
    token that ends it; ``finish`` says why it ended: the model said so, the limit was reached, or nobody wants it.
    ``lookup`` drafts tokens where that is wanted. ``error`` is what ``choose`` raised, which ends this answer alone.
    """

    inputs_embeds: np.ndarray | None
    routing: np.ndarray | None
    choose: Chooser
    limit: int
    stats: Stats
    lookup: Lookup | None = None
    error: Exception | None = None
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.inputs_embeds)

    def take(self, logits: np.ndarray, stop_ids: frozenset[int]) -> bool:
        """Choose the next token; true when it belongs to the answer."""
        try:
            token = self.choose(logits, self.tokens)
        except Exception as error:  # noqa: BLE001, whose answer it is gets it from ``Slots.failed``
            self.error = error
            self.cancel()
            return False
        if token in stop_ids:
            self.finish = "stop"
            return False
        self.tokens.append(token)
        self.stats.new_tokens += 1
        if len(self.tokens) == self.limit:
            self.finish = "length"
        return True

    def cancel(self) -> None:
        """Its slot is free before the next step; an answer that has ended stays as it is. From any thread."""
        if self.finish is None:
            self.finish = "cancelled"


class _Slot:
    """One row of the cache: the embeddings of the positions it holds ``[held, C]``, and whose answer is made in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.embeds: np.ndarray | None = None
        self.held = 0
        self.request: Request | None = None

    @property
    def decoding(self) -> bool:
        """Whether its prompt is prefilled whole."""
        return self.request is not None and self.request.inputs_embeds is None

    def common(self, embeds: np.ndarray) -> int:
        """With how many of its positions ``embeds`` begin; the last one of a prompt is never among them: it is asked
        for its logits."""
        count = min(self.held, len(embeds) - 1)
        if not count:
            return 0
        differs = (self.embeds[:count] != embeds[:count]).any(axis=1)
        return int(differs.argmax()) if differs.any() else count

    def extend(self, rows: np.ndarray, at: int) -> None:
        """It holds ``rows`` from position ``at`` on, and nothing behind them."""
        self.embeds[at : at + len(rows)] = rows
        self.held = at + len(rows)


class Slots:
    """The rows of one KV cache and the requests in them. Not for two threads at once."""

    def __init__(self, backend: Backend, embedding: Embedding, cache: KVCache, stop_ids: frozenset[int]) -> None:
        self._backend, self._embedding, self._cache, self._stop_ids = backend, embedding, cache, stop_ids
        self._slots = [_Slot(number) for number in range(cache.slots)]
        # Whose prompts are not whole yet, the oldest first.
        self._waiting: deque[_Slot] = deque()
        # Requests that ended with an error, for whoever runs these slots to take out.
        self.failed: list[Request] = []

    @property
    def free(self) -> int:
        """How many hold no request."""
        return sum(slot.request is None for slot in self._slots)

    @property
    def busy(self) -> bool:
        """Whether any holds one."""
        return self.free < len(self._slots)

    def admit(self, request: Request) -> None:
        """Put ``request`` into the free slot that holds most of its beginning already. One must be free."""
        common = {slot: slot.common(request.inputs_embeds) for slot in self._slots if slot.request is None}
        slot = max(common, key=lambda slot: (common[slot], -slot.held))
        if slot.embeds is None:
            slot.embeds = np.empty((self._cache.max_len, request.inputs_embeds.shape[1]), request.inputs_embeds.dtype)
        slot.held = request.stats.kept_tokens = common[slot]
        slot.request = request
        self._waiting.append(slot)

    def advance(self, chunk: int | None = None) -> Iterator[tuple[Request, int]]:
        """Prefill every prompt that waits, then take one step of all that decode; yield (request, token) for each.

        With ``chunk`` the others come first: while any decodes, that many positions of one prompt are prefilled and no
        more. A request that ends leaves its slot, and so does one that was cancelled, before anything else is computed.
        """
        self._release()
        while self._waiting:
            bounded = chunk if any(slot.decoding for slot in self._slots) else None
            if taken := self._prefill(self._waiting[0], bounded):
                yield taken
            self._release()
            if bounded:
                break
        live = [slot for slot in self._slots if slot.decoding]
        if live:
            drafted = self._draft(live[0]) if len(live) == 1 else []
            yield from self._drafted_step(live[0], drafted) if drafted else self._step(live)
        self._release()

    def clear(self) -> None:
        """Cancel what is in them."""
        for slot in self._slots:
            if slot.request:
                slot.request.cancel()
        self._release()
        self.failed.clear()

    def _release(self) -> None:
        for slot in self._slots:
            if slot.request and slot.request.finish:
                if slot.request.error is not None:
                    self.failed.append(slot.request)
                slot.request.inputs_embeds = None
                slot.request = None
        self._waiting = deque(slot for slot in self._waiting if slot.request and not slot.decoding)

    def _prefill(self, slot: _Slot, chunk: int | None) -> tuple[Request, int] | None:
        """The rest of a prompt, or a chunk of it; the first token when it is whole and there is one."""
        if self._backend.copies:
            self._copy_common(slot)
        request, start = slot.request, slot.held
        rows = request.inputs_embeds[start:][:chunk]
        with request.stats.timed("prefill"):
            logits = self._backend.prefill(rows, self._cache, slot=slot.number, start=start)
            slot.extend(rows, start)
            if slot.held < request.length:
                return None
            request.inputs_embeds = None
            return (request, request.tokens[-1]) if request.take(logits, self._stop_ids) else None

    def _copy_common(self, slot: _Slot) -> None:
        """Take over what another slot holds of this one's prompt, beyond what it holds itself."""
        embeds = slot.request.inputs_embeds
        common = {other: other.common(embeds) for other in self._slots if other is not slot}
        source = max(common, key=common.get, default=slot)
        more = common.get(source, 0) - slot.held
        if more > 0:
            self._backend.copy(self._cache, source=source.number, target=slot.number, count=slot.held + more)
            slot.extend(embeds[slot.held : slot.held + more], slot.held)
            slot.request.stats.kept_tokens += more

    def _step(self, live: Sequence[_Slot]) -> list[tuple[Request, int]]:
        """Decode one token for every slot that decodes; those that belong to an answer."""
        start = time.perf_counter()
        rows = self._slots[: live[-1].number + 1]
        last, lengths = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int32)
        for slot in rows:
            if slot.decoding:
                last[slot.number] = slot.request.tokens[-1]
            else:
                # The step writes a position of this row too: the one behind what it holds, which means nothing yet.
                slot.held = min(slot.held, self._cache.max_len - 1)
            lengths[slot.number] = slot.held
        embeds = self._embedding.gather(last, self._backend.embeds_dtype)
        logits = self._backend.decode(embeds, lengths, self._cache)
        taken = []
        for slot in live:
            slot.extend(embeds[slot.number : slot.number + 1], slot.held)
            if slot.request.take(logits[slot.number], self._stop_ids):
                taken.append((slot.request, slot.request.tokens[-1]))
        seconds = time.perf_counter() - start
        for slot in live:
            slot.request.stats.add_step(seconds, tokens=1)
        return taken

    def _draft(self, slot: _Slot) -> list[int]:
        """What may come behind the last token of the only answer under way; nothing where it does not pay."""
        request = slot.request
        if request.lookup is None:
            return []
        # Beside them a step has room for the last token, and chooses one more.
        room = min(request.limit - len(request.tokens), self._cache.max_len - slot.held) - 1
        return request.lookup.draft(request.tokens, room)

    def _drafted_step(self, slot: _Slot, drafted: Sequence[int]) -> list[tuple[Request, int]]:
        """Decode behind the last token and all of ``drafted``; keep the tokens chosen where those before were right."""
        start = time.perf_counter()
        request, taken = slot.request, []
        fed = np.array([request.tokens[-1], *drafted])
        embeds = self._embedding.gather(fed, self._backend.embeds_dtype)
        logits = self._backend.extend(embeds, self._cache, slot=slot.number, start=slot.held)
        chosen = 0
        while not request.finish and (not chosen or request.tokens[-1] == drafted[chosen - 1]):
            slot.extend(embeds[chosen : chosen + 1], slot.held)
            if request.take(logits[chosen], self._stop_ids):
                taken.append((request, request.tokens[-1]))
            chosen += 1
            if chosen > len(drafted):
                break
        request.lookup.judge(len(drafted), chosen - 1)
        request.stats.add_step(time.perf_counter() - start, tokens=chosen)
        return taken


def generate(requests: Iterable[Request], slots: Slots) -> Iterator[tuple[Request, int]]:
    """Yield (request, token) as tokens come; ``requests`` is read only when a slot is free.

    Raises the error of the first request that has one.
    """
    waiting = iter(requests)
    try:
        while True:
            while slots.free and (request := next(waiting, None)) is not None:
                slots.admit(request)
            if not slots.busy:
                return
            yield from slots.advance()
            if slots.failed:
                raise slots.failed[0].error
    finally:
        slots.clear()
