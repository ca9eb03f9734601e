"""``--auto`` from a tiny checkpoint to a bundle: the plan, its files, what is told of it, and what is refused."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from parrot_export import verify
from parrot_export.cli import main
from parrot_export.description import model_dims
from parrot_export.float32 import float32_logits
from parrot_export.gate import encode
from parrot_export.mixed.rounding import RoundedModel
from parrot_export.mixed.sensitivity import Sensitivity
from parrot_export.mixed.units import model_units
from parrot_export.samples import graded_samples
from parrot_runtime.integrity import verify_files
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import load_manifest
from parrot_runtime.tokenizer import load_tokenizer

FEW = ("--search-samples", "1", "--gate-samples", "1", "--max-len", "512")
LOOSE = ("--max-drop", "100", "--max-kl", "1000")


@pytest.fixture
def random_weights(monkeypatch):
    """They round worse than trained ones."""
    wide = verify.Tolerance(9.0, 9.0, "random weights")
    monkeypatch.setattr(verify, "TOLERANCES", dict.fromkeys(verify.TOLERANCES, wide))


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words], prog_name="parrot-export")
    assert result.exit_code == code, result.output
    return result


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_everything_at_the_fewest_bytes_is_enough_where_anything_is_allowed(
    rounding_folder, scales_folder, tmp_path, random_weights
):
    told = run(rounding_folder, "--auto", "--calibration", scales_folder, *FEW, *LOOSE, "-o", tmp_path / "b", "--json")
    data, manifest = json.loads(told.stdout), load_manifest(tmp_path / "b")
    verify_files(tmp_path / "b", manifest)
    assert names(tmp_path) == ["b"]  # what the search kept is gone with its success
    assert manifest.precision == "mixed"
    # No block divides the 56 channels inside the encoder's MLPs: half in float16 is more than all in 8 bits.
    kinds = {name for name, kind in manifest.units.items() if kind != "int4"}
    assert kinds == {"embedding", "encoder.layers.0.mlp", "encoder.layers.1.mlp"}
    assert set(manifest.graphs) == {"encoder", "experts", "decoder"}
    assert manifest.verification["gate"]["budget"] == {"drop": 100.0, "kl": 1000.0}
    assert manifest.verification["calibration"]["samples"] == 6
    frontier = json.loads((tmp_path / "b/frontier.json").read_text())
    assert data["frontier"] == frontier
    labels = {label for point in frontier["measured"] for label in point["label"].split(", ")}
    assert labels == {"fewest bytes", "all int8", "float16", "chosen"}
    (chosen,) = [point for point in frontier["measured"] if "chosen" in point["label"]]
    weights = [r.size for name, r in manifest.files.items() if name.endswith(".safetensors")]
    # The files' headers are what the search does not count.
    assert 0 < sum(weights) - chosen["size"] < 40_000
    assert chosen["stored"] == {name: kind for name, kind in manifest.units.items() if name in chosen["stored"]}
    assert [step["size"] for step in frontier["steps"]] == sorted(step["size"] for step in frontier["steps"])
    shown = run("inspect", tmp_path / "b").stdout
    assert "experts decoder.layers.0.attn decoder.layers.0.mlp" in shown
    assert "size of the weights against the worst language:" in shown
    assert "part by part: int4 `encoder.layers.0.attn`" in (tmp_path / "b/README.md").read_text("utf-8")


def test_no_plan_within_the_budget_is_refused_with_the_table_and_the_search_is_not_lost(
    rounding_folder, tmp_path, random_weights, monkeypatch
):
    words = (rounding_folder, "--auto", *FEW, "--max-kl", "0", "-o", tmp_path / "b")
    told = run(*words, code=1).stderr
    assert "no plan is within the budget, float16 everywhere neither" in told
    assert "drop points" in told
    assert "float16" in told.splitlines()[-1]
    assert names(tmp_path) == [".b.auto"]

    def never(*_arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(Sensitivity, "_cost", never)
    run(*words, code=1)
    # With other questions it is another search.
    assert "measured again" in run(*words, "--search-samples", "2", code=1).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--auto", "--no-verify"), "which --no-verify leaves out"),
        (("--auto", "--link"), "--auto rounds them"),
        (("--auto", "--target", "tensorrt"), "looks for a plan by the kernels of the cpu"),
        (("--auto", "--sm", "89"), "--sm is of TensorRT"),
        (("--int8", "--search-samples", "3"), "--search-samples is for --auto"),
        (("--auto", "--embedding-bits", "4"), "'4' is not one of '8', '16'"),
    ],
)
def test_what_contradicts_itself_is_refused(rounding_folder, tmp_path, options, message):
    told = run(rounding_folder, *options, "-o", tmp_path / "b", code=2)
    assert message in told.stderr.replace("\n", " ")
    assert not names(tmp_path)


def test_costs_are_the_divergence_of_the_next_token(source, scales, tmp_path):
    """Against torch's own KL over the whole conversation, in float64."""
    units = [one for one in model_units(source.architecture) if one.name == "decoder.layers.1.mlp"]
    model, cache = source.load_model(), tmp_path / "costs"
    samples = list(graded_samples(2, split="train", seed="auto"))
    found = Sensitivity(source, scales, model_dims(source, 512), cache, samples).measure(model, units)
    (costs,) = found.values()
    assert set(costs) == {"int4", "int8", "float16"}
    asked = list(encode(load_tokenizer(source.tokenizer), source.recipe, 17, samples))
    rounded = RoundedModel(model, source, scales)
    for choice, by_language in costs.items():
        assert set(by_language) == set(CODES)
        total, count = 0.0, 0
        for one in (one for one in asked if one.question.language == "ru"):
            exact = torch.from_numpy(float32_logits(model, one)).double().log_softmax(-1)
            with rounded.rounding(units[0], choice):
                rounded.prompt = len(one.question.ids)
                got = torch.from_numpy(float32_logits(model, one)).double().log_softmax(-1)
            total += float(torch.nn.functional.kl_div(got, exact, log_target=True, reduction="sum"))
            count += len(one.answer)
        assert by_language["ru"] == pytest.approx(total / count, rel=1e-3, abs=1e-7)
    assert all(costs["int4"][code] > costs["int8"][code] > costs["float16"][code] for code in CODES)


def test_a_cut_line_is_measured_again(source, tmp_path):
    units = [one for one in model_units(source.architecture) if one.name == "encoder.projector"]
    cache, dims, model = tmp_path / "costs", model_dims(source, 512), source.load_model()
    samples = list(graded_samples(1, split="train", seed="auto"))
    first = Sensitivity(source, None, dims, cache, samples).measure(model, units)
    text = cache.read_text("utf-8")
    cache.write_text(text[:-20], "utf-8")
    again = Sensitivity(source, None, dims, cache, samples)
    assert [choice for _, choice in again.missing(units)] == ["float16"]
    second = again.measure(model, units)
    np.testing.assert_allclose(
        second["encoder.projector"]["float16"]["en"], first["encoder.projector"]["float16"]["en"]
    )
    assert not Sensitivity(source, None, dims, cache, samples).missing(units)
