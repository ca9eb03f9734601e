"""Folders of the nano world: who draws, who waits, who is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_runtime.errors import InputError
from parrot_train.nano import world


def fill(folder: Path) -> None:
    (folder / "stage1.json").write_text("[]")


def drawn(folder: Path, number: int = 1) -> list[Path]:
    world.ensure(folder, {"number": number}, fill)
    return [folder / "stage1.json"]


# What another process runs: it cannot import this file, which belongs to no package that is installed.
DRAW_SLOWLY = """
import os, sys, time
from pathlib import Path
from parrot_train.nano import world

def fill(folder):
    (folder.parent / f"drawing-{os.getpid()}").touch()
    time.sleep(0.5)
    (folder / "stage1.json").write_text("[]")

world.ensure(Path(sys.argv[1]), {"number": 1}, fill)
"""


def test_two_processes_that_need_it_draw_once(tmp_path):
    command = [sys.executable, "-c", DRAW_SLOWLY, str(tmp_path / "data")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("drawing-*"))) == 1
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["stage1.json", "world.json"]


def test_a_world_that_is_read_is_not_replaced(tmp_path):
    files = drawn(tmp_path / "data")
    with world.reading(files) as held, world.reading(files):
        assert held == files
        assert drawn(tmp_path / "data") == files  # the same world is there already
        with pytest.raises(InputError, match="data: a training reads the world there"):
            drawn(tmp_path / "data", 2)
        assert json.loads((tmp_path / "data" / "world.json").read_text()) == {"number": 1}
    drawn(tmp_path / "data", 2)
    assert json.loads((tmp_path / "data" / "world.json").read_text()) == {"number": 2}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]


def test_a_world_that_is_being_replaced_is_not_read(tmp_path):
    files = drawn(tmp_path / "data")

    def refused(folder: Path) -> None:
        with pytest.raises(InputError, match="draws this world anew"), world.reading(files):
            pass
        fill(folder)

    world.ensure(tmp_path / "data", {"number": 2}, refused)
    with world.reading(files):
        pass


def test_files_outside_of_any_world_are_nobodys(tmp_path):
    (tmp_path / "mine.json").write_text("[]")
    with world.reading([tmp_path / "mine.json"]) as files:
        assert files == [tmp_path / "mine.json"]


def test_an_unreadable_stamp_is_another_world(tmp_path):
    drawn(tmp_path / "data")
    (tmp_path / "data" / "world.json").write_text("{")
    drawn(tmp_path / "data")
    assert json.loads((tmp_path / "data" / "world.json").read_text()) == {"number": 1}
