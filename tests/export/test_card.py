"""The model card says what is known and claims nothing else."""

import dataclasses

import pytest

from parrot_export.card import model_card
from parrot_runtime.manifest import load_manifest

NANO = {
    "config": "nano",
    "stage": 2,
    "samples": 24000,
    "languages": {"en": 14400, "tr": 1680},
    "settings": {
        "data": {"stage1": ["nano"], "stage2": ["nano"]},
        "backbones": {"vision": "package:nano", "llm": "package:nano"},
    },
}


@pytest.fixture(scope="module")
def manifest(bundle):
    return load_manifest(bundle)


def test_the_card_has_the_numbers_of_the_verification(manifest):
    card = model_card(manifest, {})
    worst = manifest.verification["graphs"]["encoder"]["image_features"]["tr"]["relative"]
    (row,) = [line for line in card.splitlines() if line.startswith("| encoder: image_features")]
    assert row.split(" | ")[5] == f"{worst:.1e}"  # en zh pt ar tr ru
    assert row.count("|") == 8
    assert "does not say what it was trained on" in card


def test_nano_is_named_for_what_it_is(manifest):
    card = model_card(manifest, NANO)
    assert "license: apache-2.0" in card
    assert "its answers are not those of the model in the paper" in card
    assert "| tr | 1680 |" in card


@pytest.mark.parametrize(
    "settings",
    [
        {"data": {"stage1": ["nano"], "stage2": ["mine.json"]}, "backbones": {"vision": "package:nano"}},
        {
            "data": {"stage1": ["nano"], "stage2": ["nano"]},
            "backbones": {"vision": "package:nano", "llm": "Qwen/Qwen2-7B"},
        },
        {},
    ],
)
def test_no_licence_is_claimed_for_what_others_made(manifest, settings):
    card = model_card(manifest, NANO | {"settings": settings})
    assert "license:" not in card
    assert "Apache" not in card


def test_an_extended_model_is_nano_if_all_of_it_is(manifest):
    data = {"stage1": ["nano"], "stage2": ["nano"], "extend": ["nano"]}
    extended = NANO | {"stage": "extend", "from": NANO, "settings": NANO["settings"] | {"data": data}}
    assert "license: apache-2.0" in model_card(manifest, extended)
    others = {
        "from": NANO | {"settings": {}},
        "settings": NANO["settings"] | {"data": data | {"extend": ["mine.json"]}},
    }
    for name, changed in others.items():
        assert "license:" not in model_card(manifest, extended | {name: changed}), name


def test_a_bundle_that_was_not_verified_says_so(manifest):
    card = model_card(dataclasses.replace(manifest, verification={"status": "skipped"}), {})
    assert "**Not verified**" in card


def test_the_card_names_what_can_run_the_bundle(manifest):
    alone = {"target": "tensorrt", "graphs": {}, "tensorrt": manifest.graphs, "tensorrt_dialect": "tensorrt-modern"}
    runs, builds = "parrot-run --bundle THIS_FOLDER", "parrot-export engines THIS_FOLDER"
    for changes, can_build, needs_engines in (
        ({}, False, False),
        ({"tensorrt": manifest.graphs, "tensorrt_dialect": "tensorrt-modern"}, True, False),
        (alone, True, True),
    ):
        card = model_card(dataclasses.replace(manifest, **changes), {})
        assert (runs in card, builds in card) == (True, can_build)
        assert ("`parrot-run` needs engines" in card) == needs_engines
