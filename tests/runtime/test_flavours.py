"""What is said of a TensorRT that is missing, broken or too old; the real one stands in tests/export/engines."""

import importlib
import sys
from types import ModuleType

import pytest

from parrot_runtime.errors import InputError
from parrot_runtime.flavours import FLAVOURS, installed, load_flavour
from parrot_runtime.gpu import Gpu
from parrot_runtime.names import TARGETS


def module(name: str, version: str, monkeypatch) -> None:
    fake = ModuleType(name)
    fake.__version__ = version
    monkeypatch.setitem(sys.modules, name, fake)


def test_every_target_but_the_cpu_is_a_flavour():
    """An export passes the name of its target on as that of the builder."""
    assert ("cpu", *FLAVOURS) == TARGETS


def test_the_full_one_builds_for_the_gpu_that_is_here(monkeypatch):
    module("tensorrt", "10.3.0.post1", monkeypatch)
    flavour = load_flavour("tensorrt")
    assert str(flavour) == "tensorrt 10.3.0.post1"
    assert flavour.sms(Gpu("Orin", 87)) == (87,)
    assert flavour.sms(None) == ()


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0"])
def test_one_that_is_too_old_says_which_to_install(monkeypatch, version):
    module("tensorrt", version, monkeypatch)
    with pytest.raises(InputError, match=r"is too old; run `pip install 'tensorrt>=10\.3'`"):
        load_flavour("tensorrt")


@pytest.mark.parametrize("error", [ImportError("libnvinfer.so.10: cannot open\nmore"), OSError("no such library")])
def test_one_that_does_not_load_is_one_line(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(InputError, match=r"pip install 'parrot-edge\[tensorrt-rtx\]'") as caught:
        load_flavour("tensorrt-rtx")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none(monkeypatch):
    with pytest.raises(InputError, match="the flavour 'trt' is not known; choose tensorrt or tensorrt-rtx"):
        load_flavour("trt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert installed() == ()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert installed() == FLAVOURS


def test_the_real_one_offers_the_gpus_engines_are_built_for():
    pytest.importorskip("tensorrt_rtx")
    flavour = load_flavour("tensorrt-rtx")
    assert {75, 80, 86, 89, 120} <= set(flavour.sms(None))
    # A GPU it has no name for can be built for where it is.
    assert {*flavour.sms(None), 90} == {*flavour.sms(Gpu("H100", 90))}
    assert hasattr(flavour.trt.ComputeCapability, "CURRENT")
