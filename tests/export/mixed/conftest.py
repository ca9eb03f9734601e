"""Fixtures of mixed plans: a model to round, its calibration, and bundles of any plan of it."""

import pytest
from tiny_checkpoint import model_to_round, write_checkpoint

from parrot_calibration.run import CalibrationRequest, calibrate
from parrot_export.calibrated import Calibrated, calibrated_units
from parrot_export.checkpoint import open_checkpoint
from parrot_export.choice import Choice
from parrot_export.description import model_dims, new_manifest
from parrot_export.hashing import Hashes
from parrot_export.parts import author_parts, write_parts
from parrot_export.progress import no_progress
from parrot_export.scales import Settings, read_scales
from parrot_export.verify import BundleUnderTest
from parrot_runtime.integrity import record_files

MAX_LEN = 512


@pytest.fixture(scope="session")
def rounding_folder(tmp_path_factory):
    """A checkpoint whose matrices have blocks of every size, and none."""
    return write_checkpoint(tmp_path_factory.mktemp("mixed") / "checkpoint", model_to_round())


@pytest.fixture(scope="session")
def source(rounding_folder):
    return open_checkpoint(rounding_folder)


@pytest.fixture(scope="session")
def scales_folder(rounding_folder, tmp_path_factory):
    """Its calibration: factors for both fits, codes of 4 bits by GPTQ in blocks of 64."""
    folder = tmp_path_factory.mktemp("mixed") / "scales"
    settings = Settings(per_language=1, block=64)
    calibrate(CalibrationRequest(checkpoint=rounding_folder, output=folder, settings=settings, threads=1))
    return folder


@pytest.fixture(scope="session")
def scales(scales_folder, source):
    return read_scales(scales_folder, source)


@pytest.fixture
def bundle_of(tmp_path):
    """``bundle_of(checkpoint, plan, scales, fits)``: its graphs, ready to be asked, and what was authored."""

    def make(checkpoint, plan, scales=None, fits=None):
        choice, dims = Choice(plan), model_dims(checkpoint, MAX_LEN)
        parts_of = calibrated_units(scales, checkpoint, fits) if scales else Calibrated(checkpoint, None)
        with Hashes() as hashes:
            parts = author_parts(parts_of, choice, MAX_LEN, None)
            write_parts(parts, checkpoint, tmp_path, hashes, no_progress)
        graphs, files = parts.graphs, record_files(tmp_path)
        manifest = new_manifest(checkpoint, graphs, choice, name="tiny", dims=dims, files=files)
        return BundleUnderTest(tmp_path, manifest), parts.cpu

    return make
