"""Which TensorRT builds, and for which GPUs: from what was asked, what is installed and what is here."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parrot_runtime.errors import InputError
from parrot_runtime.flavours import FLAVOURS, Flavour, installed, load_flavour
from parrot_runtime.gpu import Gpu, present_gpu

# Without a GPU and without --sm: data centre Ampere, Ada and Blackwell, the newest of each that RTX builds for.
USUAL_SMS = (80, 89, 120)


@dataclass(frozen=True)
class Target:
    """The TensorRT that builds, for which SMs, and whether somebody named these (``asked``) or they are the usual."""

    flavour: Flavour
    sms: tuple[int, ...]
    asked: bool
    gpu: Gpu | None


def parse_sms(text: str) -> tuple[int, ...]:
    """``80,89,120`` (``sm89`` and ``8.9`` too) as numbers, each once. Raises InputError."""
    sms = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:sm)?_?(\d{1,2}\.\d|\d{2,3})", part.strip().lower())
        if not match:
            raise InputError(f"--sm is '{text}'; expected compute capabilities such as 80,89,120")
        sms.append(int(match[1].replace(".", "")))
    return tuple(dict.fromkeys(sms))


def choose_target(
    sms: Sequence[int] | None,
    flavour: str | None,
    *,
    offered: Sequence[str] | None = None,
    load: Callable[[str], Flavour] = load_flavour,
    find_gpu: Callable[[], Gpu | None] = present_gpu,
) -> Target:
    """The first installed flavour, or the one asked for, that builds for every SM asked for.

    Without ``sms`` they are the GPU's here, and without a GPU the usual ones. Raises InputError when nothing is
    installed, or nothing that is builds for these SMs.
    """
    names = (flavour,) if flavour else installed() if offered is None else tuple(offered)
    if not names:
        raise InputError(
            "no TensorRT is installed; run `pip install 'parrot-edge[tensorrt-rtx]'`, which builds on any machine, or "
            "'parrot-edge[tensorrt]' on the machine with the GPU"
        )
    gpu = find_gpu()
    reasons = []
    for name in names:
        try:
            candidate = load(name)
        except InputError as error:
            # One that is broken must not stand in the way of another that is not.
            reasons.append(str(error))
            continue
        can = candidate.sms(gpu)
        usual = USUAL_SMS if not candidate.needs_gpu else ()
        wanted = tuple(sms or ((gpu.sm,) if gpu else usual))
        if wanted and set(wanted) <= set(can):
            return Target(candidate, wanted, bool(sms), gpu)
        reasons.append(_why_not(candidate, wanted, can))
    raise InputError("; ".join(reasons))


def _why_not(flavour: Flavour, wanted: Sequence[int], can: Sequence[int]) -> str:
    if flavour.needs_gpu:
        other = next(name for name in FLAVOURS if name != flavour.name)
        here = f"SM {can[0]}" if can else "none"
        return f"{flavour} builds for the GPU of this machine only, which is {here}: build there, or take {other}"
    missing = ", ".join(str(sm) for sm in wanted if sm not in can)
    known = ", ".join(map(str, can))
    return f"{flavour} builds for SM {known}, not for {missing}: choose among these with --sm, or take tensorrt there"
