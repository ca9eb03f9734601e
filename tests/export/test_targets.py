"""Exports for TensorRT: every precision in both dialects, alone or beside onnxruntime's graphs, and their engines."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_checkpoint import tiny_model, write_checkpoint

from parrot_export.bundle import export
from parrot_export.cli import main
from parrot_export.inspection import describe_verification, inspect, verify_bundle
from parrot_export.request import ExportRequest
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.manifest import load_manifest
from parrot_runtime.parrot import Parrot

DIALECTS = ("tensorrt-modern", "tensorrt-classic")
HALVES_AND_WHOLE = ("fp32", "fp16", "bf16")
ROLES = {"encoder", "experts", "decoder"}
# A byte is a token to the tiny checkpoint, so the prompts of the samples are long.
MAX_LEN = 1024


@pytest.fixture(autouse=True)
def no_builder(request, monkeypatch):
    """No engines, unless a test is about them."""
    if "engines" not in request.node.name:

        def none(*_arguments):
            raise InputError("this is a machine without TensorRT")

        monkeypatch.setattr("parrot_export.choice.choose_target", none)


def request(checkpoint, output, precision="fp16", **options):
    return ExportRequest(checkpoint=checkpoint, output=output, precision=precision, max_len=MAX_LEN, **options)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("precision", [*HALVES_AND_WHOLE, "int8", "int4", "fp8"])
def test_every_precision_in_both_dialects(checkpoint, tmp_path, precision, dialect):
    """Random weights are rounded worse than quantised presets allow (the test below), so those are not compared."""
    notes, whole = [], precision in HALVES_AND_WHOLE
    options = {"target": "tensorrt-rtx", "dialect": dialect, "verify": whole}
    folder, manifest = export(request(checkpoint, tmp_path / "x", precision, **options), note=notes.append)
    assert manifest == load_manifest(folder)
    assert (manifest.target, manifest.precision, manifest.tensorrt_dialect) == ("tensorrt-rtx", precision, dialect)
    assert (manifest.graphs, set(manifest.tensorrt)) == ({}, ROLES)
    assert manifest.kv_dtype == manifest.tensorrt_kv_dtype
    assert notes == ["no engines are built here: this is a machine without TensorRT"]
    found = inspect(folder)
    assert found["tensorrt"]["decoder"]["operators"].get("TensorScatter", 0) == (6 if dialect == DIALECTS[0] else 0)
    # onnxruntime has no products in bfloat16: that is said, never passed over.
    expected = "not run" if precision == "bf16" else "passed"
    assert manifest.verification["status"] == (expected if whole else "skipped")
    ran = verify_bundle(folder)
    assert ran["tensorrt"]["status"] == ran["status"] == ("not run" if precision == "bf16" else "ran")
    if precision == "bf16":
        assert "Could not find an implementation for Gemm" in describe_verification(ran)[1]
        assert "**not run**" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_what_is_rounded_too_far_is_not_published(checkpoint, tmp_path, precision):
    with pytest.raises(ParrotError, match=r"tensorrt .*nothing was published: try --fp16"):
        export(request(checkpoint, tmp_path / "x", precision, target="tensorrt"))
    assert not list(tmp_path.iterdir())


def test_both_sets_of_graphs_share_files_and_are_both_verified(checkpoint, tmp_path):
    """An option of TensorRT's own asks for its graphs where no TensorRT is installed, too."""
    folder, manifest = export(request(checkpoint, tmp_path / "x", dialect="tensorrt-classic"))
    alone = export(request(checkpoint, tmp_path / "cpu", target="cpu"))[1]
    assert (manifest.target, manifest.kv_dtype, manifest.tensorrt_kv_dtype) == ("cpu", "float32", "float16")
    weights = {name for name in manifest.files if name.endswith(".safetensors")}
    assert weights == {name for name in alone.files if name.endswith(".safetensors")}
    assert manifest.verification["graphs"] == alone.verification["graphs"]
    own = manifest.verification["tensorrt"]
    assert own["status"] == "passed"
    worst = [one["relative"] for tensors in own["graphs"].values() for t in tensors.values() for one in t.values()]
    assert 0 < max(worst) <= own["tolerance"]["relative"]
    assert Parrot.load(folder, threads=1).ask(None, "?", max_new_tokens=2).text is not None


def test_another_family_goes_the_whole_way(tmp_path):
    """Norms of queries and keys, an encoder without a class token: both sets of graphs, on the samples, as a chain."""
    text = {"model_type": "qwen3", "head_dim": 32}
    vision = {"model_type": "siglip_vision_model"}
    model = tiny_model(text=text, vision=vision, vision_feature_select="patch", num_experts=3)
    source = write_checkpoint(tmp_path / "checkpoint", model)
    folder, manifest = export(request(source, tmp_path / "x", dialect="tensorrt-modern"))
    assert manifest.verification["status"] == manifest.verification["tensorrt"]["status"] == "passed"
    assert not [name for name in manifest.files if "tensorrt" in name and name.endswith(".safetensors")]
    assert inspect(folder)["tensorrt"]["decoder"]["operators"]["RMSNormalization"] == 13  # of which six of heads


def test_without_tensorrt_nothing_has_changed(checkpoint, tmp_path):
    notes = []
    manifest = export(request(checkpoint, tmp_path / "x", verify=False), note=notes.append)[1]
    assert (manifest.target, manifest.tensorrt, manifest.tensorrt_dialect, notes) == ("cpu", {}, None, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bf16"], "--bf16 is of TensorRT alone; add --target"),
        (["--fp8", "--target", "cpu"], "--fp8 is of TensorRT alone"),
        (
            ["--target", "cpu", "--dialect", "tensorrt-modern"],
            "--dialect is of TensorRT, which --target cpu leaves out",
        ),
        (["--target", "cpu", "--sm", "89"], "--sm is of TensorRT"),
        (["--fp8", "--target", "tensorrt-rtx", "--sm", "80,89"], "SM80 has no fp8 arithmetic"),
        (["--target", "tensorrt-rtx", "--sm", "89"], "this is a machine without TensorRT"),
        (["--max-batch", "2"], "this is a machine without TensorRT"),
        (["--target", "tensorrt", "--sm", "eight"], "--sm is 'eight'; expected"),
    ],
)
def test_what_cannot_be_is_one_line(checkpoint, tmp_path, arguments, message):
    result = CliRunner().invoke(
        main, [str(checkpoint), "-o", str(tmp_path / "x"), *arguments], prog_name="parrot-export"
    )
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_tensorrt_graph_is_found(checkpoint, tmp_path, monkeypatch):
    from parrot_export.emulation import TensorRTOnCpu

    honest = TensorRTOnCpu.encode_images
    for wrong, fault in ((1.1, "tensorrt encoder: image_features off by"), (np.nan, "has NaN or infinity")):
        monkeypatch.setattr(TensorRTOnCpu, "encode_images", lambda self, p, by=wrong: honest(self, p) * np.float32(by))
        with pytest.raises(ParrotError, match=fault):
            export(request(checkpoint, tmp_path / "x", target="tensorrt"))
    assert not list(tmp_path.iterdir())


def test_engines_are_built_in_the_same_command(checkpoint, tmp_path):
    """By the real TensorRT-RTX, for a GPU that is not here."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; `pip install tensorrt-rtx`")
    line = [str(checkpoint), "-o", str(tmp_path / "x"), "--sm", "89", "--max-batch", "2", "--max-len", str(MAX_LEN)]
    result = CliRunner().invoke(main, [*line, "--json", "--no-verify"], prog_name="parrot-export")
    assert result.exit_code == 0, result.output
    (folder,) = json.loads(result.stdout)["engines"]
    assert folder.startswith(str(tmp_path / "x/engines/sm89-tensorrt-rtx-"))
    build = json.loads((tmp_path / folder / "build.json").read_text())
    assert set(build["engines"]) == ROLES
    assert all(engine["size"] > 0 for engine in build["engines"].values())
