"""The driver's answers, from a driver made up here; and that this machine's, or none, is no error."""

import ctypes

import pytest

from parrot_runtime.errors import ParrotError
from parrot_runtime.gpu import Gpu, ask_driver, present_gpu


class Driver:
    """libcuda with one GPU of compute capability 8.9; ``init`` and ``broken`` are CUDA error codes."""

    def __init__(self, *, init: int = 0, count: int = 1, broken: int = 0) -> None:
        self.init, self.count, self.broken = init, count, broken

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, count):
        count._obj.value = self.count
        return self.broken

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = ordinal + 7
        return 0

    def cuDeviceGetName(self, name, length, device):
        ctypes.memmove(name, b"NVIDIA GeForce RTX 4090\0", 24)
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0 if device.value == 7 else 1


def test_the_first_gpu_by_name_and_capability():
    assert ask_driver(Driver()) == Gpu("NVIDIA GeForce RTX 4090", 89)


@pytest.mark.parametrize("driver", [Driver(init=100), Driver(count=0)])
def test_a_driver_without_a_gpu(driver):
    assert ask_driver(driver) is None


@pytest.mark.parametrize("driver", [Driver(init=803), Driver(broken=999)])
def test_a_driver_that_does_not_work_is_an_error(driver):
    with pytest.raises(ParrotError, match=r"CUDA error (803|999)"):
        ask_driver(driver)


def test_a_machine_without_a_driver(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert present_gpu() is None
