"""The experts' graph against the model in torch: batch 3, 33 words of which each row has another share."""

import numpy as np
import pytest
import torch
from tiny_checkpoint import IMAGE_TOKENS, WIDTH, relative_error

TOLERANCE = {"fp32": 1e-5, "fp16": 1e-2}


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, IMAGE_TOKENS, WIDTH)).astype(np.float32)
    text = rng.standard_normal((3, 33, WIDTH)).astype(np.float32)
    mask = np.arange(33)[None] < np.array([33, 7, 1])[:, None]
    return features, text, mask


def run_both(tiny, features, text, mask):
    with torch.no_grad():
        visual, routing = tiny.model.model.moe(*(torch.from_numpy(array) for array in (features, text, mask)))
    got = tiny.run("experts", image_features=features, text_embeds=text, text_mask=mask)
    return got, visual.numpy(), routing.numpy()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_visual_tokens_and_routing_are_torchs(exported, inputs, form, precision):
    got, visual, routing = run_both(exported(form, precision), *inputs)
    assert relative_error(got["visual_tokens"], visual) < TOLERANCE[precision]
    assert relative_error(got["routing"], routing) < TOLERANCE[precision]
    # A router that ignored the question would give equal rows and pass nothing above by itself.
    assert np.ptp(got["routing"], axis=0).max() > 0.01


def test_masked_words_do_not_matter(exported, inputs):
    tiny, (features, text, mask) = exported("paper"), inputs
    other = np.where(mask[..., None], text, np.float32(1e3))
    first = tiny.run("experts", image_features=features, text_embeds=text, text_mask=mask)
    second = tiny.run("experts", image_features=features, text_embeds=other, text_mask=mask)
    np.testing.assert_array_equal(first["routing"], second["routing"])
    np.testing.assert_array_equal(first["visual_tokens"], second["visual_tokens"])


def test_without_any_text_the_routing_is_uniform(exported, inputs):
    tiny, (features, text, mask) = exported("paper"), inputs
    got, visual, routing = run_both(tiny, features, text, np.zeros_like(mask))
    np.testing.assert_allclose(routing, 1 / 5, atol=1e-7)  # the rounding of one float32 softmax
    np.testing.assert_allclose(got["routing"], routing, atol=1e-7)
    assert relative_error(got["visual_tokens"], visual) < 1e-5


def test_a_model_without_experts_has_no_such_graph(exported):
    assert set(exported("llava").sessions) == {"encoder", "decoder"}
