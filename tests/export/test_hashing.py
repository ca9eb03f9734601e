"""Hashes that are found while an export does other things, against hashlib on the bytes."""

import hashlib
import os
import subprocess
import sys
import threading

import pytest

from parrot_export import hashing
from parrot_export.hashing import Hashes
from parrot_runtime.errors import ParrotError


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Nine files of 0 to 800 bytes, hashed in pieces of 33."""
    monkeypatch.setattr(hashing, "_PIECE_BYTES", 33)
    paths = [tmp_path / f"{number}" for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100 * number)
    return paths


def _right(path, record):
    data = path.read_bytes()
    return (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_hashes_begun_early_or_not_at_all_are_those_of_the_bytes(files):
    with Hashes() as hashes:
        hashes.begin(files[:5])
        assert all(_right(path, hashes.record(path)) for path in files)


def test_a_hard_link_has_the_hash_of_its_file_without_another_reading(files, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        hashing, "_record", lambda path, event, real=hashing._record: read.append(path) or real(path, event)
    )
    with Hashes() as hashes:
        hashes.begin(files[7:])
        os.link(files[7], tmp_path / "link")
        assert _right(files[7], hashes.record(tmp_path / "link"))
        assert _right(files[8], hashes.record(files[8]))
    assert sorted(read) == files[7:]


@pytest.mark.parametrize("change", ["rewritten", "replaced"])
def test_a_file_that_changed_since_is_hashed_again(files, change):
    with Hashes() as hashes:
        hashes.begin(files)
        hashes.record(files[4])
        if change == "replaced":
            files[4].unlink()
        files[4].write_bytes(b"x" * 400)
        os.utime(files[4], ns=(0, 77))  # a clock that ticks every few milliseconds may not have moved on
        assert _right(files[4], hashes.record(files[4]))


def test_a_file_that_never_rests_is_an_error(files, monkeypatch):
    def record(path, event, real=hashing._record):
        state, found = real(path, event)
        path.write_bytes(path.read_bytes() + b"more")
        return state, found

    monkeypatch.setattr(hashing, "_record", record)
    with Hashes() as hashes, pytest.raises(ParrotError, match=r"8: is written to while it is exported; export again"):
        hashes.record(files[8])


def test_what_is_not_kept_is_not_read_to_its_end(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 42)  # 4 TiB of nothing: most of an hour of hashing
    (tmp_path / "small").write_bytes(b"small")
    with Hashes() as hashes:
        hashes.begin([tmp_path / "large", tmp_path / "small"])
        hashes.keep([tmp_path / "small"])
        assert _right(tmp_path / "small", hashes.record(tmp_path / "small"))


def test_an_interrupted_export_leaves_no_thread_behind(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 42)

    def interrupted():
        with Hashes() as hashes:
            hashes.begin([tmp_path / "large"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sha256")]


def test_an_export_that_is_not_verified_imports_no_modelling_code(checkpoint, tmp_path):
    """A second of imports; and hashing on the other cores would wait for it."""
    script = """
import sys
from pathlib import Path
from parrot_export.bundle import export
from parrot_export.request import ExportRequest
export(ExportRequest(checkpoint=Path(sys.argv[1]), output=Path(sys.argv[2]), target="cpu", link=True, verify=False))
print(sorted({"parrot_train.model.modeling", "transformers.modeling_utils"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, checkpoint, tmp_path / "bundle"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
