"""Fixtures of the calibration's tests: the exporter's tiny checkpoints, calibrated once."""

import sys
from pathlib import Path

import pytest

# Imported one by one (importmode=importlib): what tests share is found beside them, tiny models with the exporter's.
sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
sys.path.insert(0, str(Path(__file__).parent))

from small_settings import SETTINGS
from tiny_checkpoint import model_to_round, tiny_model, write_checkpoint

from parrot_calibration.request import CalibrationRequest
from parrot_calibration.run import calibrate


@pytest.fixture(autouse=True)
def no_tensorrt(monkeypatch):
    """An export without a target is for the cpu alone, as where no TensorRT is installed."""
    monkeypatch.setattr("parrot_export.choice.installed", lambda: ())


@pytest.fixture(scope="session")
def model():
    """Grouped queries, biases, blocks of 64, experts of the paper's kind."""
    return model_to_round()


@pytest.fixture(scope="session")
def checkpoint(model, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("calibration") / "checkpoint", model)


@pytest.fixture(scope="session")
def scales(checkpoint, tmp_path_factory):
    """The scales of ``checkpoint`` on nano's pictures in all six languages; read-only."""
    folder = tmp_path_factory.mktemp("scales") / "scales"
    calibrate(CalibrationRequest(checkpoint=checkpoint, output=folder, settings=SETTINGS, threads=1))
    return folder


@pytest.fixture(scope="session")
def swiglu(tmp_path_factory):
    """A checkpoint whose experts can be folded too, and whose output layer is one of its own."""
    model = tiny_model(expert_kind="swiglu", residual="released", alpha=0.3, num_experts=3)
    return model, write_checkpoint(tmp_path_factory.mktemp("calibration") / "swiglu", model)
