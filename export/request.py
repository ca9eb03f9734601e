"""What an export is asked for, and which requests contradict themselves."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_export.scales import FIT_OF
from parrot_runtime.errors import InputError
from parrot_runtime.publish import check_output

if TYPE_CHECKING:
    from parrot_export.gate import Budget

MIXED = "mixed"


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export. None takes the default: the newest finished stage 2, ``bundles/<name>-<precision>``, and the
    model's longest sequence up to 2,048; the cpu and, where one is installed, TensorRT; its modern dialect; engines for
    the GPU here or the usual ones, for eight slots; the bits of the precision. With the precision ``mixed`` a plan is
    looked for."""

    checkpoint: Path | None = None
    output: Path | None = None
    precision: str = "fp16"
    target: str | None = None
    dialect: str | None = None
    sms: tuple[int, ...] | None = None
    max_batch: int | None = None
    max_len: int | None = None
    vision_tower: Path | None = None
    link: bool = False
    calibration: Path | None = None
    max_drop: float | None = None
    max_kl: float | None = None
    gate_samples: int | None = None
    gate_data: tuple[Path, ...] = ()
    embedding_bits: int | None = None
    lm_head_bits: int | None = None
    search_samples: int | None = None
    verify: bool = True
    force: bool = False

    @property
    def mixed(self) -> bool:
        """Whether a plan is looked for."""
        return self.precision == MIXED

    @property
    def gated(self) -> bool:
        """Whether the cost of rounding is measured: where it was calibrated, or a budget was named."""
        named = any(value is not None for value in (self.calibration, self.max_drop, self.max_kl))
        return self.verify and (self.mixed or named)

    @property
    def budget(self) -> "Budget":
        """What a language may lose."""
        from parrot_export.gate import Budget

        given = {"drop": self.max_drop, "kl": self.max_kl}
        return Budget(**{name: value for name, value in given.items() if value is not None})

    def check(self) -> None:
        """Raise InputError for options that contradict each other, and for what is asked of nobody."""
        for option, value in (("--max-drop", self.max_drop), ("--max-kl", self.max_kl)):
            if value is not None and not math.isfinite(value):
                raise InputError(f"{option} is {value}; expected a number, such as 1000 to leave it open")
        if self.max_batch is not None and self.max_batch < 1:
            raise InputError(f"--max-batch is {self.max_batch}; expected 1 or more")
        if self.output is not None:
            check_output(self.output)
        if self.mixed and not self.verify:
            raise InputError("--auto goes by what is measured, which --no-verify leaves out; leave one of them out")
        if self.mixed and self.link:
            raise InputError("--link reads weights as they stand, and --auto rounds them; leave one of them out")
        if not self.mixed and self.search_samples is not None:
            raise InputError("--search-samples is for --auto; give both, or neither")
        if self.calibration and not self.mixed and self.precision not in FIT_OF:
            raise InputError(
                f"--calibration says how to round, which --{self.precision} does not; add --int8, --int4, --fp8 or "
                "--auto, or drop it"
            )
        if not self.verify and (self.max_drop is not None or self.max_kl is not None):
            raise InputError(
                "--max-drop and --max-kl are measured, which --no-verify leaves out; leave one of them out"
            )
        if not self.gated and (self.gate_samples is not None or self.gate_data):
            given = "--gate-samples" if self.gate_samples is not None else "--gate-data"
            raise InputError(
                f"{given} is for --auto, --calibration, --max-drop or --max-kl, verified; give one of them too"
            )
