"""Answers in float32 are computed once for several bundles, and no more than fits is kept."""

import numpy as np
import pytest

from parrot_export import float32
from parrot_export.checkpoint import open_checkpoint
from parrot_export.float32 import Float32, float32_logits
from parrot_export.gate import encode
from parrot_export.samples import graded_samples
from parrot_runtime.tokenizer import load_tokenizer


@pytest.fixture
def asked(checkpoint):
    source = open_checkpoint(checkpoint)
    return list(encode(load_tokenizer(source.tokenizer), source.recipe, 17, list(graded_samples(2))))


@pytest.fixture
def counted(monkeypatch):
    """How often torch is asked, by what."""
    calls = {"float32_logits": 0, "expect": 0}

    def count(name):
        whole = getattr(float32, name)

        def counting(*arguments):
            calls[name] += 1
            return whole(*arguments)

        monkeypatch.setattr(float32, name, counting)

    for name in calls:
        count(name)
    return calls


def test_what_was_asked_is_not_asked_again(checkpoint, asked, counted):
    model = open_checkpoint(checkpoint).load_model()
    kept = Float32(model)
    for _ in range(2):
        for one in asked:
            np.testing.assert_array_equal(kept.logits(one), float32_logits(model, one))
            assert kept.answer(one, 3) == kept.answer(one, 3)
    assert counted["float32_logits"] == counted["expect"] == len(asked) == 12
    assert kept.answer(asked[0], 2) == kept.answer(asked[0], 3)[:2]


def test_logits_beyond_the_room_are_computed_anew(checkpoint, asked, counted):
    model = open_checkpoint(checkpoint).load_model()
    first = float32_logits(model, asked[0])
    kept = Float32(model, room=first.nbytes)
    np.testing.assert_array_equal(kept.logits(asked[0]), first)
    for _ in range(2):
        np.testing.assert_array_equal(kept.logits(asked[1]), float32_logits(model, asked[1]))
    assert counted["float32_logits"] == 3
    kept.logits(asked[0])
    assert counted["float32_logits"] == 3
