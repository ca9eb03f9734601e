"""One run of ``parrot-calibrate``: samples, graphs, segment after segment, and the two files of scales.

Beside the output stands a hidden folder with everything found so far. A run that was cut goes on after the last whole
segment when it is started again with the same checkpoint, samples and settings, and starts anew with any other.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from parrot_calibration.layer import LayerCalibrator, Part
from parrot_calibration.request import CalibrationRequest
from parrot_export.checkpoint import Checkpoint, open_checkpoint
from parrot_export.conversations import draw_samples
from parrot_export.layerwise.feeds import Encoded, encode_samples
from parrot_export.layerwise.walk import Step, Walk
from parrot_export.progress import Progress, no_progress
from parrot_export.scales import (
    SCALES_JSON,
    SCALES_NUMBERS,
    SCHEMA_VERSION,
    Product,
    Record,
    Rounded,
    fingerprint,
    to_json,
)
from parrot_export.weights import Block, WeightFile, require_room
from parrot_runtime.errors import InputError
from parrot_runtime.integrity import record_file
from parrot_runtime.publish import publish_directory
from parrot_runtime.strict import from_mapping


def calibrate(
    request: CalibrationRequest,
    progress: Progress = no_progress,
    note: Callable[[str], None] = lambda _line: None,
) -> Record:
    """Calibrate and write ``request.output``; its record. ``note`` is told what a person should know.

    Raises InputError for anything wrong with the request, the data or the checkpoint (NaN among its activations too),
    and ParrotError where the disk is full; then nothing stands at the output.
    """
    request.check()
    checkpoint = open_checkpoint(request.checkpoint, request.vision_tower)
    drawn = draw_samples(request.data, request.settings.per_language, request.settings.seed, request.languages)
    for line in drawn.notes:
        note(line)
    limit = checkpoint.architecture.decoder.max_positions
    encoded = encode_samples(checkpoint, drawn.samples, limit, request.languages, note)
    identity = fingerprint(checkpoint)
    job = _job(identity, request, encoded)
    work = request.output.parent / f".{request.output.name}.calibrating"
    with _claimed(work, job, note):
        calibration = _Calibration(checkpoint, request, encoded, work)
        calibration.run(progress)
        record = Record(
            SCHEMA_VERSION,
            identity,
            request.languages,
            request.settings,
            tuple(one.sample.entry for one in encoded),
            calibration.products,
            calibration.matrices,
            numbers="",
        )
        record = _publish(request, record, calibration.arrays)
    shutil.rmtree(work, ignore_errors=True)
    return record


def _job(identity: str, request: CalibrationRequest, encoded: Sequence[Encoded]) -> str:
    """What makes a cut run's work this run's: all that could change a number."""
    told = {
        "checkpoint": identity,
        "languages": request.languages,
        "settings": asdict(request.settings),
        "samples": [[one.sample.entry, one.ids.tolist(), _picture(one)] for one in encoded],
        "data": [record_file(path).sha256 for path in request.data],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _picture(one: Encoded) -> str:
    image = one.sample.image()
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


@contextmanager
def _claimed(work: Path, job: str, note: Callable[[str], None]) -> Iterator[None]:
    """The folder of work in progress, this job's and nobody else's while it runs."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{work}: another calibration is writing there; wait for it, or name another output"
            ) from error
        stamp = work / "job"
        if stamp.exists() and stamp.read_text() == job:
            note("going on where an earlier run was cut")
        else:
            for path in work.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            stamp.write_text(job)
        try:
            yield
        except InputError:
            shutil.rmtree(work)  # the same would end in the same place again
            raise


class _Calibration:
    """The steps of a walk, in order, with what was found of each kept below ``work``."""

    def __init__(
        self, checkpoint: Checkpoint, request: CalibrationRequest, encoded: Sequence[Encoded], work: Path
    ) -> None:
        self._walk, self._encoded, self._work = Walk(checkpoint, encoded, work, request.threads), encoded, work
        self._layers = LayerCalibrator(checkpoint, request.settings, request.languages)
        self._language = [request.languages.index(one.sample.language) for one in encoded]
        self.products: dict[str, Product] = {}
        self.matrices: dict[str, Rounded] = {}
        self.arrays: dict[str, Path] = {}

    def run(self, progress: Progress) -> None:
        """Every step that is not done yet; then ``products``, ``matrices`` and ``arrays`` are whole."""
        with progress("Calibrating", 2 * len(self._walk.steps) * len(self._encoded)) as advance:
            for step in self._walk.steps:
                if (self._work / "parts" / step.name).exists():
                    advance(2 * len(self._encoded))
                else:
                    self._keep(step.name, self._calibrate(step, advance))
                    self._walk.close(step)
                self._collect(step.name)

    def _calibrate(self, step: Step, advance: Callable[[int], None]) -> Part:
        chosen, walk = self._walk.feeds.chosen(step.role), self._walk.open(step)
        totals = np.bincount(self._language, [len(rows) for rows in chosen], len(self._layers.languages))

        def run() -> Iterator[tuple[int, str, np.ndarray, dict[str, np.ndarray]]]:
            for at, values in walk():
                yield self._language[at], self._encoded[at].sample.name, chosen[at], values
                advance(1)

        return self._layers.calibrate(step.role, step.exposed, totals, run)

    def _keep(self, step: str, part: Part) -> None:
        """Write what a segment yielded; once it stands, the segment is done."""
        with publish_directory(self._work / "parts" / step) as folder:
            data = {
                "products": {name: asdict(one) for name, one in part.products.items()},
                "matrices": {name: asdict(one) for name, one in part.matrices.items()},
                "arrays": list(part.arrays),
            }
            (folder / "part.json").write_text(json.dumps(data), encoding="utf-8")
            for number, array in enumerate(part.arrays.values()):
                np.save(folder / f"{number}.npy", array)

    def _collect(self, step: str) -> None:
        """Take up what a segment that is done has left."""
        folder = self._work / "parts" / step
        data = json.loads((folder / "part.json").read_text(encoding="utf-8"))
        for name, one in data["products"].items():
            self.products[name] = from_mapping(Product, one, where=f"{folder}: {name}")
        for name, one in data["matrices"].items():
            self.matrices[name] = from_mapping(Rounded, one, where=f"{folder}: {name}")
        self.arrays |= {name: folder / f"{number}.npy" for number, name in enumerate(data["arrays"])}


def _publish(request: CalibrationRequest, record: Record, arrays: dict[str, Path]) -> Record:
    """Write the two files, from the arrays on disk, and give the folder its name."""
    with publish_directory(request.output, force=request.force) as folder:
        file = WeightFile(SCALES_NUMBERS)
        for name, path in arrays.items():
            array = np.load(path, mmap_mode="r")
            file.place([Block(name, str(array.dtype), array.shape, lambda array=array: _pieces(array))])
        file.seal()
        require_room(folder, file.size)
        file.write(folder)
        record = replace(record, numbers=record_file(folder / SCALES_NUMBERS).sha256)
        (folder / SCALES_JSON).write_text(to_json(record), encoding="utf-8")
    return record


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """A mapped array, flat, a few MiB at a time."""
    step = max(1, (8 << 20) // max(1, array[:1].nbytes))
    for first in range(0, len(array), step):
        yield np.ascontiguousarray(array[first : first + step]).reshape(-1)
