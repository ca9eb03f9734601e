"""What a bundle is allowed follows its precision, and what else it rounds."""

import dataclasses

import pytest

from parrot_export.tolerances import TOLERANCES, tolerance_of
from parrot_runtime.manifest import load_manifest


@pytest.fixture(scope="module")
def manifest(bundle):
    return load_manifest(bundle)


@pytest.mark.parametrize(
    ("precision", "units", "allowed"),
    [
        ("fp32", {}, "fp32"),
        ("fp32", {"embed_tokens": "float16"}, "fp16"),  # a table on 11 bits is off by more than float32 graphs are
        ("fp16", {}, "fp16"),
        ("int4", {"lm_head": "int8"}, "int4"),  # which allow as much without it
    ],
)
def test_the_precision_decides_and_words_in_float16(manifest, precision, units, allowed):
    rounded = dataclasses.replace(manifest, precision=precision, units=units)
    assert tolerance_of(TOLERANCES, rounded) == TOLERANCES[allowed]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_words_on_eight_bits_are_judged_as_such(manifest, precision):
    rounded = dataclasses.replace(manifest, precision=precision, units={"embed_tokens": "int8"})
    assert tolerance_of(TOLERANCES, rounded).relative == TOLERANCES["int8"].relative
