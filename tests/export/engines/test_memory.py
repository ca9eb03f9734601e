"""What a machine has left for a build."""

import pytest

from parrot_export.engines import memory
from parrot_runtime.errors import ParrotError

GIB = 1 << 30
MEMINFO = "MemTotal: 25165824 kB\nMemFree: 1024 kB\nMemAvailable: 8388608 kB\nSwapFree: 1048576 kB\nHugePages_Free: 0\n"


def machine(folder, *, limit: str | None = None):
    """8 GiB available and 1 GiB of swap; with ``limit``, in a container that uses 3 GiB, one of them file cache."""
    (folder / "meminfo").write_text(MEMINFO)
    if limit is not None:
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{3 * GIB}\n")
        (folder / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    return folder / "meminfo", folder


@pytest.mark.parametrize(
    ("limit", "free"), [(None, 9 * GIB), ("max", 9 * GIB), (str(6 * GIB), 4 * GIB), (str(1 * GIB), 0)]
)
def test_memory_is_what_machine_and_container_leave(tmp_path, limit, free):
    assert memory.available_memory(*machine(tmp_path, limit=limit)) == free


def test_a_system_that_does_not_say_is_not_guessed(tmp_path, monkeypatch):
    assert memory.available_memory(tmp_path / "meminfo", tmp_path) is None
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    memory.require_memory(1 << 50, streams=True, graph="decoder.onnx")


def test_this_machine_says_something_credible():
    free = memory.available_memory()
    if free is None:
        pytest.skip("this system has no /proc/meminfo")
    assert 1 << 20 < free < 1 << 50


@pytest.mark.parametrize(("streams", "enough", "too_much"), [(True, 4, 5), (False, 2, 3)])
def test_a_build_that_would_not_fit_is_not_begun(monkeypatch, streams, enough, too_much):
    monkeypatch.setattr(memory, "available_memory", lambda: 9 * GIB)
    memory.require_memory(enough * GIB, streams=streams, graph="decoder.onnx")
    with pytest.raises(ParrotError, match=r"decoder.onnx: building its engine takes about .* 9\.0 GiB are free; close"):
        memory.require_memory(too_much * GIB, streams=streams, graph="decoder.onnx")
