"""From a picture to the numbers the vision encoder takes; one recipe for training and for running.

Recipe (the paper's preprocessing): pad to a square with the picture in the middle, resize bicubically, divide by 255,
subtract the mean, divide by the standard deviation. It stands as data in every checkpoint and in every bundle.
"""

import math
from dataclasses import dataclass
from typing import Literal

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageRecipe:
    """How a picture becomes ``float32[3, size, size]``; ``mean`` and ``std`` are per channel, RGB, after 1/255."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad_colour: tuple[int, ...] = (122, 116, 104)
    aspect: Literal["pad"] = "pad"
    resample: Literal["bicubic"] = "bicubic"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise ValueError(f"size is {self.size}; expected 1 to 4096 pixels")
        if not len(self.mean) == len(self.std) == len(self.pad_colour) == 3:
            raise ValueError("mean, std and pad_colour need three values each, for red, green and blue")
        if not all(map(math.isfinite, self.mean)) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ValueError("mean must be finite, std finite and above zero")
        if not all(0 <= channel <= 255 for channel in self.pad_colour):
            raise ValueError(f"pad_colour is {self.pad_colour}; expected values from 0 to 255")

    @classmethod
    def clip(cls, size: int) -> "ImageRecipe":
        """The recipe of CLIP's vision tower at ``size`` pixels."""
        return cls(size, CLIP_MEAN, CLIP_STD)
