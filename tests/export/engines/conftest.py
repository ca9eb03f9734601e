"""Fixtures of the engine builder's tests: small graphs written here, in bundles, and the real tensorrt_rtx."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_graphs import gemm_net, write_bundle
from stand_in import install

from parrot_runtime.flavours import load_flavour


@pytest.fixture(scope="session")
def rtx():
    """TensorRT-RTX, which builds for any GPU it knows on a machine without one."""
    pytest.importorskip("tensorrt_rtx")
    return load_flavour("tensorrt-rtx")


@pytest.fixture
def bundle(tmp_path):
    """A bundle with TensorRT graphs for all three roles."""
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def gemm(tmp_path):
    """One Gemm with its weight in a safetensors file: ``x [batch, 24]`` to ``y [batch, 40]``."""
    return gemm_net(tmp_path / "gemm")


@pytest.fixture
def built(monkeypatch):
    """A stand-in for the builder; the list of what it was asked to build: graph, SM, timings."""
    return install(monkeypatch)
