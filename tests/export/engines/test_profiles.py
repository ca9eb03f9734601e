"""Ranges of shapes from the names of axes; no TensorRT is needed."""

import pytest

from parrot_export.engines.profiles import DEFAULT_MAX_BATCH, limits, profiles
from parrot_runtime.engines import ShapeRange
from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.manifest import Graph, ModelDims, Tensor

DIMS = ModelDims(
    hidden_size=896,
    layers=1,
    heads=14,
    kv_heads=2,
    head_dim=64,
    vocab_size=151936,
    max_len=2048,
    image_tokens=577,
    experts=6,
    expert_kind="mlp",
    residual="paper",
    alpha=1.0,
)
LIMITS = limits(DIMS, max_batch=3)


def graph(**axes) -> Graph:
    return Graph("graph.onnx", tuple(Tensor(name, "float16", shape) for name, shape in axes.items()), ())


def by_name(role: str, of: Graph, bounds=LIMITS) -> dict[str, dict[str, ShapeRange]]:
    return {profile.name: profile.shapes for profile in profiles(role, of, bounds)}


def test_the_encoder_takes_one_picture_up_to_the_largest_batch():
    found = by_name("encoder", graph(pixel_values=("images", 3, 336, 336)))
    shape = ShapeRange((1, 3, 336, 336), (1, 3, 336, 336), (3, 3, 336, 336))
    assert found == {"default": {"pixel_values": shape}}


def test_the_experts_take_questions_of_any_length():
    found = by_name("experts", graph(text_embeds=("batch", "text", 896), text_mask=("batch", "text")))
    assert found == {
        "default": {
            "text_embeds": ShapeRange((1, 1, 896), (1, 64, 896), (3, 2048, 896)),
            "text_mask": ShapeRange((1, 1), (1, 64), (3, 2048)),
        }
    }


def test_a_static_cache_is_prefilled_alone_and_decoded_together():
    cache = ("batch", 2, 2048, 64)
    found = by_name("decoder", graph(inputs_embeds=("batch", "seq", 896), key=cache, write_index=("batch",)))
    assert list(found) == ["prefill", "decode"]
    assert found["prefill"] == {
        "inputs_embeds": ShapeRange((1, 1, 896), (1, 641, 896), (1, 2048, 896)),
        "key": ShapeRange((1, 2, 2048, 64), (1, 2, 2048, 64), (1, 2, 2048, 64)),
        "write_index": ShapeRange((1,), (1,), (1,)),
    }
    assert found["decode"] == {
        "inputs_embeds": ShapeRange((1, 1, 896), (1, 1, 896), (3, 1, 896)),
        "key": ShapeRange((1, 2, 2048, 64), (1, 2, 2048, 64), (3, 2, 2048, 64)),
        "write_index": ShapeRange((1,), (1,), (3,)),
    }


def test_a_concatenated_cache_starts_empty():
    found = by_name("decoder", graph(embeds=("batch", "seq"), past=("batch", "past_len"), mask=("seq", "total_len")))
    assert found["prefill"]["past"] == ShapeRange((1, 0), (1, 0), (1, 0))
    assert found["decode"]["past"] == ShapeRange((1, 0), (1, 640), (3, 2047))
    # The positions before and those of the call make up the whole; TensorRT warns at a corner where they do not.
    for shapes in found.values():
        for corner in ("min", "opt", "max"):
            seq, total = getattr(shapes["mask"], corner)
            assert getattr(shapes["past"], corner)[1] + seq == total
    assert found["decode"]["mask"] == ShapeRange((1, 1), (1, 641), (1, 2048))


def test_a_free_cache_length_and_an_input_without_axes():
    found = by_name("decoder", graph(key=("batch", "max_len"), total=()), limits(DIMS, max_len=600))
    assert found["decode"]["key"] == ShapeRange((1, 1), (1, 600), (DEFAULT_MAX_BATCH, 600))
    assert found["decode"]["total"] == ShapeRange((), (), ())


def test_limits_are_the_bundles_unless_told():
    bounds = limits(DIMS)
    assert (bounds.max_batch, bounds.max_len, bounds.usual_prompt) == (DEFAULT_MAX_BATCH, 2048, 641)
    # A sequence shorter than the usual prompt is all there is to tune for.
    assert limits(DIMS, max_len=579).usual_prompt == 579


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"max_batch": 0}, "--max-batch is 0; expected 1 or more"),
        ({"max_len": 578}, r"--max-len is 578; this bundle takes 579 \(one picture and a token\) to 2048"),
        ({"max_len": 2049}, "--max-len is 2049"),
    ],
)
def test_limits_the_bundle_cannot_keep_are_refused(asked, complaint):
    with pytest.raises(InputError, match=complaint):
        limits(DIMS, **asked)


def test_an_axis_nobody_knows_is_named():
    with pytest.raises(BundleError, match=r"graph\.onnx: the axis 'patches' of 'pixel_values' has no range"):
        profiles("encoder", graph(pixel_values=("images", "patches")), LIMITS)


@pytest.mark.parametrize("shapes", [((2,), (1,), (3,)), ((1,), (1, 2), (3,)), ((-1,), (1,), (1,))])
def test_a_range_that_is_none_is_refused(shapes):
    with pytest.raises(ValueError, match=r"expected 0 <= min|different numbers"):
        ShapeRange(*shapes)
