"""Outputs that appear whole or not at all: links, two at once, what killed processes left."""

import os

import pytest

from parrot_runtime.errors import InputError
from parrot_runtime.publish import check_output, publish_directory


def test_a_link_is_not_published_through(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "kept").write_text("kept")
    for name, target in (("link", "real"), ("dangling", "nowhere")):
        os.symlink(target, tmp_path / name)
        for force in (False, True):
            with pytest.raises(InputError, match="is a link"), publish_directory(tmp_path / name, force=force):
                pytest.fail("work was done for it")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "link", "real"]
    assert (tmp_path / "real" / "kept").read_text() == "kept"


def test_a_link_that_an_older_version_left_is_no_trouble(tmp_path):
    os.symlink("nowhere", tmp_path / ".out.x1.4194305.old")
    with publish_directory(tmp_path / "out") as beside:
        (beside / "a").write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_first_of_two_stays(tmp_path):
    mine, theirs = (publish_directory(tmp_path / "out") for _ in range(2))
    (mine.__enter__() / "whose").write_text("mine")
    with theirs as folder:
        (folder / "whose").write_text("theirs")
    with pytest.raises(InputError, match="another process has published there meanwhile"):
        mine.__exit__(None, None, None)
    assert (tmp_path / "out" / "whose").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    for force in (False, True):
        (tmp_path / f"out-{force}").mkdir()
        with publish_directory(tmp_path / f"out-{force}", force=force) as beside:
            (beside / "a").write_text("a")
        assert (tmp_path / f"out-{force}" / "a").read_text() == "a"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_mount_point_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path)
    with pytest.raises(InputError, match=r"is a mount point.*; give a folder inside it"), publish_directory(tmp_path):
        pytest.fail("work was done for it")


def test_a_place_is_looked_at_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    check_output(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file is a file; give another folder"):
            check_output(place)
