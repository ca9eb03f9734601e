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
    """Features of the ``capacity`` pictures used last. No question enters the encoder, so they serve any question."""

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
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
            self._features[picture.key] = features
            while len(self._features) > self._capacity:
                self._features.popitem(last=False)
        return features, False
