"""What to calibrate, as a request: from options to what a run is given."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parrot_export.scales import SCALES_JSON, Settings
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES, parse_languages
from parrot_runtime.manifest import MANIFEST_NAME
from parrot_runtime.publish import check_output, is_free


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest:
    """What to calibrate, on what, and where to put it. Without ``data``, on nano's own pictures."""

    checkpoint: Path
    output: Path
    data: tuple[Path, ...] = ()
    languages: tuple[str, ...] = CODES
    settings: Settings = field(default_factory=Settings)
    vision_tower: Path | None = None
    threads: int = 0
    force: bool = False

    def check(self) -> None:
        """Raise InputError for a checkpoint that is a bundle, and an output that stands and is not to be replaced."""
        if (self.checkpoint / MANIFEST_NAME).is_file():
            raise InputError(
                f"{self.checkpoint} is a bundle, whose weights are rounded and laid out already; give the checkpoint "
                "that it was exported from"
            )
        output = self.output
        check_output(output)
        if not is_free(output) and not self.force:
            raise InputError(f"{output} exists already; give --force to replace it, or another name with -o")
        if not is_free(output) and not (output / SCALES_JSON).is_file():
            raise InputError(f"{output} holds no scales, so --force does not replace it; give another name with -o")


def request_of(checkpoint: Path | None, **options: Any) -> CalibrationRequest:
    """The request by what was typed; without a checkpoint, for the newest finished stage 2. Raises InputError."""
    if checkpoint is None:
        from parrot_train.checkpoint import newest_finished_run

        checkpoint = newest_finished_run(stage=2)
    settings = Settings(
        ranges=options.pop("ranges"),
        int4=options.pop("int4"),
        block=int(options.pop("block")),
        asymmetric=options.pop("asymmetric"),
        seed=options.pop("seed"),
        per_language=options.pop("per_language"),
    )
    languages = parse_languages(options.pop("languages"))
    return CalibrationRequest(checkpoint=checkpoint, languages=languages, settings=settings, **options)
