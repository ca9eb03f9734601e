"""Pictures made ready once, and the vision encoder's features of the last few."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture read and preprocessed: ``pixel_values`` float32 ``[3, S, S]``. ``key`` names its content."""

    pixel_values: np.ndarray
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", hashlib.sha256(self.pixel_values.tobytes()).digest())


class FeatureCache:
    """Features of the pictures used last, ``capacity`` bytes of them at most; the newest stays whatever it takes.

    No question enters the encoder, so they serve any question.
    """

    def __init__(self, capacity: int = 128 << 20) -> None:
        self._capacity, self._size = capacity, 0
        self._features: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, picture: Picture, encode: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, bool]:
        """The features of ``picture`` ``[P, C]``, and whether they were known; ``encode`` takes ``[1, 3, S, S]``.

        Pictures are encoded one by one, so that an answer never depends on which other pictures came with it.
        """
        with self._lock:
            features = self._features.get(picture.key)
            if features is not None:
                self._features.move_to_end(picture.key)
                return features, True
        features = encode(picture.pixel_values[None])[0]
        with self._lock:
            if picture.key not in self._features:  # another thread may have been as fast
                self._features[picture.key] = features
                self._size += features.nbytes
            while self._size > self._capacity and len(self._features) > 1:
                self._size -= self._features.popitem(last=False)[1].nbytes
        return features, False
