"""The files a manifest vouches for: what is missing, altered, linked or no file is named."""

import os
import shutil

import pytest

from parrot_runtime.errors import BundleError
from parrot_runtime.integrity import verify_files
from parrot_runtime.manifest import load_manifest


def _unverified(folder, message):
    with pytest.raises(BundleError, match=message) as error:
        verify_files(folder, load_manifest(folder))
    assert len(str(error.value).splitlines()) == 1


def test_missing_cut_and_grown_files(copy):
    path = copy / "llm/decoder.onnx"
    whole = path.read_bytes()
    path.unlink()
    _unverified(copy, "decoder.onnx: the bundle lists this file and it is missing")
    path.mkdir()
    _unverified(copy, "decoder.onnx: the bundle lists this as a file and it is none")
    path.rmdir()
    for content in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(content)
        _unverified(copy, rf"decoder.onnx: {len(content)} bytes where the manifest says {len(whole)}")
    path.write_bytes(whole)
    verify_files(copy, load_manifest(copy))


def test_one_flipped_bit_anywhere_is_found(copy):
    manifest = load_manifest(copy)
    for name, record in manifest.files.items():
        path = copy / name
        whole = path.read_bytes()
        for place in range(0, record.size, max(1, record.size // 5)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << (place % 8)
            path.write_bytes(flipped)
            with pytest.raises(BundleError, match=f"{path.name}: the file was altered"):
                verify_files(copy, manifest)
        path.write_bytes(whole)


def test_links_are_refused(copy, tmp_path):
    path = copy / "llm/decoder.onnx"
    outside = tmp_path / "outside.onnx"
    shutil.move(path, outside)
    path.symlink_to(outside)
    _unverified(copy, "decoder.onnx: a link inside a bundle is refused")
    path.unlink()
    inside = copy / "decoder.onnx"
    shutil.move(outside, inside)
    path.symlink_to("../decoder.onnx")
    _unverified(copy, "decoder.onnx: a link inside a bundle is refused")


def test_a_linked_folder_inside_a_bundle_is_refused(copy, tmp_path):
    shutil.move(copy / "llm", tmp_path / "llm")
    (copy / "llm").symlink_to(tmp_path / "llm")
    _unverified(copy, "llm: a link inside a bundle is refused")


def test_a_hard_link_is_a_file_like_any_other(copy, tmp_path):
    # Its bytes are hashed like any other's, so it can bring in nothing that the manifest does not vouch for.
    path = copy / "llm/decoder.onnx"
    shutil.move(path, tmp_path / "store")
    os.link(tmp_path / "store", path)
    verify_files(copy, load_manifest(copy))


def test_a_bundle_may_be_reached_through_a_link(copy, tmp_path):
    (tmp_path / "latest").symlink_to(copy)
    verify_files(tmp_path / "latest", load_manifest(tmp_path / "latest"))


def test_a_pipe_is_not_opened(copy):
    path = copy / "tokenizer.json"
    path.unlink()
    os.mkfifo(path)
    _unverified(copy, "tokenizer.json: the bundle lists this as a file and it is none")


def test_a_file_nobody_listed_is_not_the_bundles_business(copy):
    (copy / ".DS_Store").write_bytes(b"\0")
    verify_files(copy, load_manifest(copy))
