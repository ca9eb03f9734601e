"""``--link``: weights that the graphs want as the checkpoint has them are read from its own files."""

import errno
import os
import shutil

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tiny_checkpoint import write_checkpoint

from parrot_export.bundle import export
from parrot_export.check import check_graphs
from parrot_export.inspection import verify_bundle
from parrot_export.request import ExportRequest
from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.integrity import verify_files
from parrot_runtime.manifest import load_manifest
from parrot_runtime.parrot import Parrot

PICTURE = Image.fromarray(np.random.default_rng(4).integers(0, 255, (30, 44, 3), np.uint8))


@pytest.fixture(scope="module")
def linked(checkpoint, tmp_path_factory):
    """A verified fp32 bundle of the fp32 checkpoint, linked; and what the export said."""
    notes, folder = [], tmp_path_factory.mktemp("linked") / "bundle"
    export(
        ExportRequest(checkpoint=checkpoint, output=folder, precision="fp32", target="cpu", link=True),
        note=notes.append,
    )
    return folder, notes


def _links(folder):
    return sorted((folder / "weights" / "linked").glob("*"))


def test_the_checkpoints_own_file_stands_in_the_bundle(linked, checkpoint, bundle):
    folder, notes = linked
    (link,) = _links(folder)
    assert link.samefile(checkpoint / "model.safetensors")
    assert "MiB of weights are linked" in notes[0]
    # What is packed, transposed or calculated is written; the rest is not there twice.
    written = sum(path.stat().st_size for path in (folder / "weights").glob("*.safetensors"))
    usual = sum(path.stat().st_size for path in (bundle / "weights").glob("*.safetensors"))
    assert written < usual / 2


def test_a_linked_bundle_is_whole_checked_and_answers_as_the_other(linked, bundle):
    folder, _ = linked
    manifest = load_manifest(folder)
    assert manifest.verification["status"] == "passed"
    verify_files(folder, manifest)
    assert verify_bundle(folder)["status"] == "ran"
    answers = {
        Parrot.load(each, threads=1).ask(PICTURE, "ne var?", max_new_tokens=12).token_ids for each in (folder, bundle)
    }
    assert len(answers) == 1


def test_queries_keys_and_values_are_joined_in_the_graph(linked):
    graph = onnx.load(linked[0] / "decoder.onnx", load_external_data=False).graph
    places = {
        t.name: {e.key: e.value for e in t.external_data}["location"] for t in graph.initializer if t.external_data
    }
    joined = [node for node in graph.node if node.op_type == "Concat" and len(node.input) == 3]
    names = [name for node in joined for name in node.input if name in places]
    assert len(names) == 9  # three layers
    assert {places[name] for name in names} == {"weights/linked/001-model.safetensors"}


def test_a_copy_of_it_is_an_ordinary_bundle(linked, tmp_path):
    copy = shutil.copytree(linked[0], tmp_path / "copy")
    assert all(path.stat().st_nlink == 1 for path in copy.rglob("*") if path.is_file())
    check_graphs(copy, load_manifest(copy))


def test_a_checkpoint_that_is_changed_in_place_is_noticed(model, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model)
    request = ExportRequest(
        checkpoint=checkpoint, output=tmp_path / "x", precision="fp32", target="cpu", link=True, verify=False
    )
    folder, manifest = export(request)
    with open(checkpoint / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(BundleError, match=r"001-model\.safetensors: the file was altered"):
        verify_files(folder, manifest)


@pytest.mark.parametrize("dialect", ["tensorrt-modern", "tensorrt-classic"])
def test_bfloat16_for_tensorrt_from_shards(model, tmp_path, dialect):
    """Experts that stand side by side are another layout, and norms are float32: these are written."""
    half = type(model)(model.config).to(torch.bfloat16)
    checkpoint = write_checkpoint(tmp_path / "shards", half, max_shard_size="60KB")
    notes = []
    folder, manifest = export(
        ExportRequest(
            checkpoint=checkpoint,
            output=tmp_path / "x",
            precision="bf16",
            target="tensorrt",
            dialect=dialect,
            verify=False,
            link=True,
        ),
        note=notes.append,
    )
    assert len(_links(folder)) > 2
    assert {path.stat().st_nlink for path in _links(folder)} == {2}
    check_graphs(folder, manifest)
    linked, copied = (float(notes[0].split(" MiB")[n].split()[-1]) for n in (0, 1))
    assert linked > copied


def test_where_nothing_fits_nothing_is_linked_and_that_is_said(checkpoint, tmp_path):
    notes = []
    request = ExportRequest(
        checkpoint=checkpoint, output=tmp_path / "x", precision="fp16", target="cpu", link=True, verify=False
    )
    folder, _ = export(request, note=notes.append)
    assert notes[0].startswith("0.0 MiB of weights are linked")
    assert not (folder / "weights" / "linked").exists()


def test_another_disk_is_said_and_nothing_is_published(checkpoint, tmp_path, monkeypatch):
    def refuse(*_paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    request = ExportRequest(
        checkpoint=checkpoint, output=tmp_path / "x", precision="fp32", target="cpu", link=True, verify=False
    )
    with pytest.raises(InputError, match=r"cannot be linked .*cross-device.*; --link wants both on one disk"):
        export(request)
    assert not list(tmp_path.iterdir())
