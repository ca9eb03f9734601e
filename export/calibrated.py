"""What a calibration changes of an export: the checkpoint it is authored from, ranges, and codes of 4 bits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parrot_export.checkpoint import Checkpoint
from parrot_export.choice import Choice
from parrot_export.folding import folded
from parrot_export.scales import FIT_OF, SCALES_JSON, Scales, read_scales
from parrot_runtime.errors import InputError
from parrot_runtime.manifest import record_file


@dataclass(frozen=True)
class Calibrated:
    """``checkpoint``, with the factors of a calibration folded in where there was one; what its graphs are to round by.

    ``note`` is what the manifest says of it.
    """

    checkpoint: Checkpoint
    ranges: Mapping[str, float] | None
    codes: Scales | None = None
    note: dict[str, Any] = field(default_factory=dict)


def calibrated_parts(folder: Path, checkpoint: Checkpoint, choice: Choice) -> Calibrated:
    """What the scales in ``folder`` make of an export of ``checkpoint``.

    Raises InputError for a precision that rounds nothing, for scales that are not of this checkpoint, and for zero
    points where TensorRT is to read them.
    """
    precision = choice.first.precision
    if precision not in FIT_OF:
        raise InputError(
            f"--calibration says how to round, which --{precision} does not; add --int8, --int4 or --fp8, or drop it"
        )
    scales = read_scales(folder, checkpoint)
    if precision == "int4" and choice.tensorrt and scales.record.settings.asymmetric:
        raise InputError(
            f"{folder}: TensorRT has no zero points in blocks of 4 bits; calibrate without --asymmetric, or "
            "add --target cpu"
        )
    record = scales.record
    settings = {"ranges": record.settings.ranges} if precision != "int4" else {"int4": record.settings.int4}
    note = {"sha256": record_file(folder / SCALES_JSON).sha256, "samples": len(record.samples), **settings}
    view = folded(checkpoint, scales.factors(FIT_OF[precision]))
    return Calibrated(view, scales.ranges, scales if precision == "int4" else None, {"calibration": note})
