"""The graphs of a bundle in either dialect or both, authored together and written with the weights that they read."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from parrot_export.author import Authored, author
from parrot_export.calibrated import Calibrated
from parrot_export.checkpoint import Checkpoint
from parrot_export.choice import Choice
from parrot_export.hashing import Hashes
from parrot_export.progress import Progress
from parrot_export.weights import LinkedFile, Links, WeightFile, require_room
from parrot_runtime.manifest import TOKENIZER_NAME, Graph


@dataclass(frozen=True)
class Parts:
    """The graphs of a bundle, in either dialect or both; files that both read are the first's."""

    cpu: Authored | None
    tensorrt: Authored | None

    @property
    def all(self) -> list[Authored]:
        """Those that are there."""
        return [part for part in (self.cpu, self.tensorrt) if part]

    @property
    def graphs(self) -> tuple[dict[str, Graph], dict[str, Graph]]:
        """Both dialects' manifest entries by role, none for a dialect that is not there."""
        return self.cpu.graphs if self.cpu else {}, self.tensorrt.graphs if self.tensorrt else {}

    @property
    def links(self) -> dict[str, LinkedFile]:
        """Files of the checkpoint that any of the graphs read, by their places in the bundle."""
        return {file.location: file for part in self.all for file in part.links}

    @property
    def linked(self) -> str:
        """How much was linked, for a person."""
        linked, copied = (sum(file.size for file in files) for files in (self.links.values(), self._copied))
        return (
            f"{linked / 2**20:,.1f} MiB of weights are linked, {copied / 2**20:,.1f} MiB stand in other forms or files"
        )

    @property
    def _copied(self) -> list[WeightFile]:
        return [file for part in self.all for file in part.files]


def author_parts(calibrated: Calibrated, choice: Choice, max_len: int, links: Links | None) -> Parts:
    """Author what ``choice`` asks for; see ``author``."""
    checkpoint, ranges, scales = calibrated.checkpoint, calibrated.ranges, calibrated.codes
    cpu = author(checkpoint, choice.cpu, max_len, links=links, scales=scales) if choice.cpu else None
    if choice.tensorrt is None:
        return Parts(cpu, None)
    tensorrt = author(checkpoint, choice.tensorrt, max_len, beside=cpu, ranges=ranges, links=links, scales=scales)
    return Parts(cpu, tensorrt)


def write_parts(parts: Parts, checkpoint: Checkpoint, folder: Path, hashes: Hashes, progress: Progress) -> None:
    """Write all of it below ``folder``, with the checkpoint's tokenizer. Raises ParrotError where there is no room."""
    size = sum(part.size for part in parts.all)
    require_room(folder, size)
    for file in parts.links.values():
        file.write(folder)
    with progress("Writing weights", size) as advance:
        for part in parts.all:
            for file in part.files:
                file.write(folder, advance)
                hashes.begin([folder / file.location])
            part.save_graphs(folder)
    shutil.copyfile(checkpoint.tokenizer, folder / TOKENIZER_NAME)
