"""What a calibration changes of an export: the checkpoint it is authored from, ranges, and codes of 4 bits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from parrot_export.checkpoint import Checkpoint
from parrot_export.choice import Choice
from parrot_export.folding import folded
from parrot_export.scales import FIT_OF, SCALES_JSON, Fit, Scales
from parrot_runtime.errors import InputError
from parrot_runtime.integrity import record_file


@dataclass(frozen=True)
class Calibrated:
    """``checkpoint``, with the factors of a calibration folded in where there was one; what its graphs are to round by.

    ``note`` is what the manifest says of it.
    """

    checkpoint: Checkpoint
    ranges: Mapping[str, float] | None
    codes: Scales | None = None
    note: dict[str, Any] = field(default_factory=dict)


def calibrated_parts(scales: Scales, checkpoint: Checkpoint, choice: Choice) -> Calibrated:
    """What ``scales`` make of an export of ``checkpoint`` in one precision.

    Raises InputError for zero points where TensorRT is to read them.
    """
    precision = choice.first.precision
    if precision == "int4" and choice.tensorrt and scales.record.settings.asymmetric:
        raise InputError(
            f"{scales.folder}: TensorRT has no zero points in blocks of 4 bits; calibrate without --asymmetric, or "
            "add --target cpu"
        )
    record = scales.record
    settings = {"ranges": record.settings.ranges} if precision != "int4" else {"int4": record.settings.int4}
    note = {"sha256": record_file(scales.folder / SCALES_JSON).sha256, "samples": len(record.samples), **settings}
    view = folded(checkpoint, scales.factors(FIT_OF[precision]))
    return Calibrated(view, scales.ranges, scales if precision == "int4" else None, {"calibration": note})


def calibrated_units(scales: Scales, checkpoint: Checkpoint, fits: Mapping[str, str]) -> Calibrated:
    """What ``scales`` make of a mixed export: the factors of each product are those of its own fit, by ``fits``."""
    factors = {
        name: numbers for fit in get_args(Fit) for name, numbers in scales.factors(fit).items() if fits.get(name) == fit
    }
    note = {
        "sha256": record_file(scales.folder / SCALES_JSON).sha256,
        "samples": len(scales.record.samples),
        "int4": scales.record.settings.int4,
    }
    return Calibrated(folded(checkpoint, factors), None, scales, {"calibration": note})
