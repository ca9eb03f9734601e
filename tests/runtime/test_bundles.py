"""Which bundle runs when none is named."""

import json
import os
import shutil

import pytest
from tiny_bundle import edit_manifest

from parrot_runtime.bundles import find_bundle
from parrot_runtime.errors import BundleError


@pytest.fixture
def place(bundle, tmp_path):
    """Put a copy of the bundle under a folder, with the age of its manifest in seconds."""

    def put(folder, name, age, **changes):
        target = shutil.copytree(bundle, tmp_path / folder / name)
        edit_manifest(target, **changes)
        os.utime(target / "parrot.json", (10**9 - age, 10**9 - age))
        return target

    return put


def _find(tmp_path):
    return find_bundle(tmp_path / "bundles", tmp_path / "shipped")


def test_the_newest_one(place, tmp_path):
    place("bundles", "a", 30)
    newest = place("bundles", "b", 10)
    place("bundles", "c", 20)
    place("shipped", "nano", 0)
    found = _find(tmp_path)
    assert found.folder == newest
    assert found.reason.startswith("the newest under")
    assert found.skipped == ()


def test_else_the_shipped_one(place, tmp_path):
    shipped = place("shipped", "nano", 0)
    assert _find(tmp_path).folder == shipped
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles/notes.txt").write_text("no bundle")
    (tmp_path / "bundles/empty").mkdir()
    found = _find(tmp_path)
    assert found.folder == shipped
    assert found.reason == "shipped with the package"


def test_one_this_machine_cannot_run_is_passed_over_and_named(place, tmp_path):
    older = place("bundles", "older", 30)
    place("bundles", "newer", 10, target="abacus")
    found = _find(tmp_path)
    assert found.folder == older
    assert len(found.skipped) == 1
    assert "newer" in found.skipped[0]
    assert "abacus" in found.skipped[0]


def test_an_export_in_the_making_is_not_a_bundle(place, tmp_path):
    place("bundles", ".nano.123.partial", 0)
    with pytest.raises(BundleError, match=r"no bundle to run.*run `parrot-export`"):
        _find(tmp_path)


def test_none_at_all_says_why_the_only_one_was_not_taken(place, tmp_path):
    place("bundles", "broken", 0, schema_version=9)
    with pytest.raises(BundleError, match=r"schema_version is 9.*run `parrot-export`"):
        _find(tmp_path)


def test_a_bundle_for_tensorrt_alone_is_passed_over(place, tmp_path):
    """onnxruntime cannot run it; it says so when it is named, and is no reason to run nothing."""
    graphs = json.loads((place("bundles", "a", 30) / "parrot.json").read_text())["graphs"]
    alone = {"target": "tensorrt", "graphs": {}, "tensorrt": graphs, "tensorrt_dialect": "tensorrt-modern"}
    place("bundles", "b", 10, **alone)
    found = _find(tmp_path)
    assert found.folder.name == "a"
    assert "a bundle for tensorrt, and nothing in it runs without a GPU" in found.skipped[0]
