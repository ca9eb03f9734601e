"""Features are computed once per picture, and forgotten by bytes."""

import numpy as np

from parrot_runtime import Parrot
from parrot_runtime.cache import FeatureCache, Picture


def test_the_encoder_sees_a_picture_once(bundle, picture, other_picture, tmp_path):
    parrot = Parrot.load(bundle, threads=1)
    seen = []
    encode = parrot._backend.encode_images
    parrot._backend.encode_images = lambda pixels: seen.append(len(pixels)) or encode(pixels)
    first = parrot.ask(picture, "one?", max_new_tokens=2)
    picture.save(tmp_path / "copy.png")
    second = parrot.ask([tmp_path / "copy.png", other_picture], "two?", max_new_tokens=2)
    assert seen == [1, 1]
    assert (first.stats.cached_images, second.stats.cached_images) == (0, 1)


def test_the_feature_cache_forgets_the_oldest():
    cache = FeatureCache(capacity=100)  # bytes: two pictures' features of 48, not three
    pictures = [Picture(np.full((3, 2, 2), value, np.float32)) for value in range(3)]
    encoded = []

    def encode(pixels):
        encoded.append(pixels[0, 0, 0, 0])
        return pixels * 2

    for number in (0, 1, 0, 2, 0, 1):
        features, known = cache.get(pictures[number], encode)
        assert features[0, 0, 0] == 2 * number
    assert encoded == [0, 1, 2, 1]
    assert not known


def test_a_picture_larger_than_the_feature_cache_is_kept_until_the_next():
    cache, encoded = FeatureCache(capacity=10), []
    pictures = [Picture(np.full((3, 2, 2), value, np.float32)) for value in range(2)]

    def encode(pixels):
        encoded.append(pixels[0, 0, 0, 0])
        return pixels

    for number in (0, 0, 1, 1, 0):
        cache.get(pictures[number], encode)
    assert encoded == [0, 1, 0]
