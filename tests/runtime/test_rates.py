"""What an answer's stages reached, against sums done by hand."""

import dataclasses
import json

import pytest
from tiny_bundle import DIMS, TinyModel, edit_manifest, write_bundle

from parrot_runtime.machine import state_folder
from parrot_runtime.manifest import load_manifest
from parrot_runtime.rates import Limits, Rate, keep_limits, kept_limits, rates
from parrot_runtime.stats import Stats

LIMITS = Limits(threads=2, read=40.0, fp32=400.0, int8=1600.0, int4_row=30.0)
SECONDS = {"load": 1.0, "image": 0.5, "experts": 0.1, "prefill": 0.25, "decode": 2.0}


@pytest.fixture
def manifest(tmp_path):
    """Of a decoder that reads 1 GB a step and multiplies 3 million times per position."""
    manifest = load_manifest(write_bundle(tmp_path / "b", TinyModel(seed=1)))
    counts = {"encoder": (0, 2_000_000), "experts": (0, 5), "decoder": (1_000_000_000, 3_000_000)}
    graphs = {
        role: dataclasses.replace(graph, weight_bytes=counts[role][0], multiply_adds=counts[role][1])
        for role, graph in manifest.graphs.items()
    }
    return dataclasses.replace(manifest, graphs=graphs)


def test_rates_are_work_by_time(manifest):
    stats = Stats(dict(SECONDS), prompt_tokens=40, image_tokens=2 * DIMS.image_tokens, new_tokens=11)
    stats.decode_steps, stats.decoded_tokens, stats.kept_tokens = 8, 10, 4
    found = rates(stats, manifest, LIMITS)
    position = 2 * DIMS.layers * DIMS.kv_heads * DIMS.head_dim * 4
    assert found["image"] == Rate(pytest.approx(2 * 2e6 * 10 / 0.5 / 1e9), "GFLOP/s", 400.0)
    assert found["prefill"] == Rate(pytest.approx(2 * 3e6 * 36 / 0.25 / 1e9), "GFLOP/s", 400.0)
    assert found["decode"] == Rate(pytest.approx(8 * (1e9 + 45 * position) / 2 / 1e9), "GB/s", 40.0)
    assert str(found["decode"]) == "4.0 of 40.0 GB/s"
    assert str(rates(stats, manifest, None)["decode"]) == "4.0 GB/s"
    small = dataclasses.replace(manifest, precision="int8")
    assert rates(stats, small, LIMITS)["prefill"].limit == 1600.0


def test_what_did_not_run_has_no_rate(manifest):
    stats = Stats(dict(SECONDS), prompt_tokens=40, image_tokens=DIMS.image_tokens, cached_images=1, kept_tokens=40)
    assert rates(stats, manifest, LIMITS) == {}


def test_graphs_that_do_not_say_have_none(tmp_path):
    manifest = load_manifest(write_bundle(tmp_path / "b", TinyModel(seed=1)))
    stats = Stats(dict(SECONDS), prompt_tokens=40, image_tokens=5, decode_steps=3, decoded_tokens=3)
    assert rates(stats, manifest, LIMITS) == {}


def test_limits_are_remembered():
    keep_limits(LIMITS)
    assert kept_limits() == LIMITS
    path = state_folder() / "machine.json"
    for damaged in (b"", b"{", b"[1]", json.dumps({"threads": 2}).encode(), b"\xff", b'{"threads": "two"}'):
        path.write_bytes(damaged)
        assert kept_limits() is None
    path.unlink()
    assert kept_limits() is None


def test_counts_below_zero_are_refused(tmp_path):
    folder = write_bundle(tmp_path / "b", TinyModel(seed=1))
    graphs = json.loads((folder / "parrot.json").read_text())["graphs"]
    graphs["decoder"]["weight_bytes"] = -1
    edit_manifest(folder, graphs=graphs)
    with pytest.raises(Exception, match="expected 0 or more"):
        load_manifest(folder)
