"""Which TensorRT builds for what, with every combination of what may be installed and present."""

from types import SimpleNamespace

import pytest

from parrot_export.engines.targets import choose_target, parse_sms
from parrot_runtime.errors import InputError
from parrot_runtime.flavours import Flavour
from parrot_runtime.gpu import Gpu

CAPABILITIES = {"NONE": 0, "CURRENT": 1, "SM120": 2, "SM75": 3, "SM80": 4, "SM89": 5}
MODULE = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=CAPABILITIES))
VERSIONS = {"tensorrt": "10.13.2", "tensorrt-rtx": "1.7.1"}
BOTH = ("tensorrt", "tensorrt-rtx")


def choose(sms=None, flavour=None, *, installed=BOTH, gpu=None, broken=()):
    def load(name):
        if name in broken:
            raise InputError(f"{name} cannot be imported")
        return Flavour(name, VERSIONS[name], MODULE)

    here = Gpu("a card", gpu) if gpu else None
    target = choose_target(sms, flavour, offered=installed, load=load, find_gpu=lambda: here)
    return target.flavour.name, target.sms


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        # The GPU here, by the library that knows it best.
        ({"gpu": 89}, ("tensorrt", (89,))),
        ({"gpu": 90}, ("tensorrt", (90,))),
        ({"gpu": 89, "installed": ("tensorrt-rtx",)}, ("tensorrt-rtx", (89,))),
        ({"gpu": 89, "flavour": "tensorrt-rtx"}, ("tensorrt-rtx", (89,))),
        # RTX has no name for it, and builds for what is here all the same.
        ({"gpu": 90, "installed": ("tensorrt-rtx",)}, ("tensorrt-rtx", (90,))),
        # Others than the GPU here are RTX's business.
        ({"gpu": 89, "sms": (80,)}, ("tensorrt-rtx", (80,))),
        ({"gpu": 89, "sms": (89, 120)}, ("tensorrt-rtx", (89, 120))),
        ({"sms": (75,)}, ("tensorrt-rtx", (75,))),
        # Nothing asked for, and no GPU.
        ({}, ("tensorrt-rtx", (80, 89, 120))),
        # One that does not even load does not stand in the way.
        ({"gpu": 89, "broken": ("tensorrt",)}, ("tensorrt-rtx", (89,))),
    ],
)
def test_the_first_that_can_is_taken(asked, found):
    assert choose(**asked) == found


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"installed": ()}, r"no TensorRT is installed; run `pip install 'parrot-edge\[tensorrt-rtx\]'`"),
        ({"installed": ("tensorrt",)}, "tensorrt 10.13.2 builds for the GPU of this machine only, which is none"),
        ({"installed": ("tensorrt",), "gpu": 89, "sms": (80,)}, "of this machine only, which is SM 89"),
        ({"gpu": 90, "sms": (87,), "installed": ("tensorrt-rtx",)}, "for SM 75, 80, 89, 90, 120, not for 87"),
        ({"sms": (80, 90, 91), "flavour": "tensorrt-rtx"}, "not for 90, 91"),
        ({"broken": BOTH}, "tensorrt cannot be imported; tensorrt-rtx cannot be imported"),
    ],
)
def test_what_cannot_be_built_is_said_with_the_way_out(asked, complaint):
    with pytest.raises(InputError, match=complaint):
        choose(**asked)


@pytest.mark.parametrize("text", ["80,89,120", "sm80, SM_89,12.0", "8.0,80,8.9,120"])
def test_compute_capabilities_as_people_write_them(text):
    assert parse_sms(text) == (80, 89, 120)


@pytest.mark.parametrize("text", ["", "ada", "80,", "8", "80;89", "-80", "1200"])
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match="expected compute capabilities such as 80,89,120"):
        parse_sms(text)
