"""Which GPU is here: asked of the driver itself, which every NVIDIA machine has.

The driver's library is part of the driver, so this needs no CUDA toolkit and no package. A machine without a driver, or
with one and no GPU, is a normal case and not an error.
"""

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

from parrot_runtime.errors import ParrotError

# From the CUDA driver API reference: error codes, and CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
_NO_DEVICE = 100
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, and its compute capability as a number (8.9 is 89)."""

    name: str
    sm: int


def present_gpu() -> Gpu | None:
    """The first GPU that CUDA shows here (``CUDA_VISIBLE_DEVICES`` counts); None on a machine without one.

    Raises ParrotError when a driver is installed and does not start.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return ask_driver(driver)


def ask_driver(driver: Any) -> Gpu | None:
    """``present_gpu`` of a loaded CUDA driver library."""
    status = driver.cuInit(0)
    if status == _NO_DEVICE:
        return None
    if status:
        raise ParrotError(
            f"the NVIDIA driver is installed but does not start (CUDA error {status}); see what nvidia-smi says"
        )
    count, device = ctypes.c_int(), ctypes.c_int()
    _check(driver.cuDeviceGetCount(ctypes.byref(count)))
    if count.value == 0:
        return None
    _check(driver.cuDeviceGet(ctypes.byref(device), 0))
    name = ctypes.create_string_buffer(256)
    _check(driver.cuDeviceGetName(name, len(name), device))
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device))
    _check(driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device))
    return Gpu(name.value.decode("utf-8", "replace"), 10 * major.value + minor.value)


def _check(status: int) -> None:
    if status:
        raise ParrotError(
            f"the NVIDIA driver does not describe its GPU (CUDA error {status}); see what nvidia-smi says"
        )
