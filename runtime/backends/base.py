"""What the runtime asks of an inference engine.

Everything above this line (prompt, routing of several pictures, sampling, the loop over tokens) is the same for every
engine; everything below it knows nothing of text. Arrays at this border are numpy arrays in the host's memory; a
backend on a device keeps its buffers, the KV cache among them, to itself.
"""

from typing import Protocol

import numpy as np


class KVCache(Protocol):
    """``slots`` independent sequences of up to ``max_len`` positions each; what it holds is the backend's business."""

    slots: int
    max_len: int


class Backend(Protocol):
    """An engine with the three graphs of one bundle loaded. C is the LLM's width, P the positions of one picture.

    ``embeds_dtype`` is the dtype of embeddings at the decoder's border; ``max_len`` the most positions and
    ``max_slots`` the most slots a cache may have, None where only memory bounds them. ``extends`` and ``copies`` say
    whether there is an ``extend`` and a ``copy``. Methods may be called from several threads at once, with different
    caches.
    """

    name: str
    embeds_dtype: str
    max_len: int
    max_slots: int | None
    extends: bool
    copies: bool

    def encode_images(self, pixel_values: np.ndarray) -> np.ndarray:
        """float32 ``[images, 3, S, S]`` to features ``[images, P, C]``; no question enters, so they keep."""

    def route(
        self, image_features: np.ndarray, text_embeds: np.ndarray, text_mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features ``[n, P, C]``, text ``[n, T, C]``, bool ``[n, T]`` to visual tokens ``[n, P, C]`` and expert shares.

        The shares are float32 ``[n, experts]``. Not called for a model without experts.
        """

    def new_cache(self, slots: int, max_len: int) -> KVCache:
        """An empty cache; memory is taken as positions are used, where the engine can."""

    def prefill(self, inputs_embeds: np.ndarray, cache: KVCache, *, slot: int = 0, start: int = 0) -> np.ndarray:
        """Run ``[T, C]`` into ``slot`` behind its first ``start`` positions; logits float32 ``[vocab]`` after the last.

        ``start`` 0 forgets what the slot held.
        """

    def decode(self, inputs_embeds: np.ndarray, lengths: np.ndarray, cache: KVCache) -> np.ndarray:
        """One position for each of the first ``rows`` slots: ``[rows, C]`` to logits float32 ``[rows, vocab]``.

        ``lengths`` int ``[rows]`` are the positions each slot holds before; a row of a free slot has length 0 and its
        logits mean nothing. The result is valid until the next call with the same cache.
        """

    def extend(self, inputs_embeds: np.ndarray, cache: KVCache, *, slot: int, start: int) -> np.ndarray:
        """Several steps at once: ``[T, C]`` behind the ``start`` positions of ``slot`` to float32 ``[T, vocab]``.

        The logits are those of T steps of one position, but for rounding. The result is valid as that of ``decode`` is.
        """

    def copy(self, cache: KVCache, *, source: int, target: int, count: int) -> None:
        """The slot ``target`` holds the first ``count`` positions of ``source``, too."""
