"""The encoder's graph against the model in torch: batch 3, images of 28 pixels in patches of 7."""

import numpy as np
import pytest
import torch
from tiny_checkpoint import relative_error

# float32 sums in another order: 1e-6 is usual at this depth. The promise is 1e-4; float16 weights are off by 5e-4 each.
TOLERANCE = {"fp32": 1e-5, "fp16": 1e-2}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).standard_normal((3, 3, 28, 28)).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("form", ["paper", "released", "llava"])
def test_features_are_torchs(exported, pixels, form, precision):
    tiny = exported(form, precision)
    with torch.no_grad():
        expected = tiny.model.get_image_features(torch.from_numpy(pixels)).numpy()
    got = tiny.run("encoder", pixel_values=pixels)["image_features"]
    assert got.shape == (3, 17, 48)
    assert relative_error(got, expected) < TOLERANCE[precision]


def test_a_batch_is_its_pictures_one_by_one(exported, pixels):
    tiny = exported("paper")
    together = tiny.run("encoder", pixel_values=pixels)["image_features"]
    alone = np.concatenate([tiny.run("encoder", pixel_values=one[None])["image_features"] for one in pixels])
    assert relative_error(together, alone) < 1e-5  # the same sums, in blocks of other sizes
