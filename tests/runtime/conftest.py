"""Fixtures of the runtime's tests: a tiny model, its bundle on disk, and the bundle loaded."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

# The tests are imported one by one (importmode=importlib): their shared modules are found beside them.
sys.path.insert(0, str(Path(__file__).parent))

from tiny_bundle import TinyModel, tiny_tokenizer, write_bundle


@pytest.fixture(scope="session")
def model():
    return TinyModel()


@pytest.fixture(scope="session")
def bundle(model, tmp_path_factory):
    """The tiny model's bundle; read-only, tests that break something copy it first."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", model)


@pytest.fixture(scope="session")
def parrot(bundle):
    from parrot_runtime import Parrot

    return Parrot.load(bundle, threads=1)


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def picture():
    """An RGB picture of 41 x 29 pixels, smooth and colourful."""
    from PIL import Image

    coarse = np.random.default_rng(7).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((41, 29), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def other_picture():
    from PIL import Image

    return Image.new("RGB", (20, 20), (10, 200, 90))


@pytest.fixture
def copy(bundle, tmp_path):
    """The bundle, to be damaged."""
    return shutil.copytree(bundle, tmp_path / "bundle")
