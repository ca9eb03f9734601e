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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from parrot_calibration.feeds import Encoded, Feeds, encode_samples
from parrot_calibration.graphs import looked_at, plan_graphs
from parrot_calibration.layer import LayerCalibrator, Part
from parrot_calibration.samples import draw_samples
from parrot_calibration.segments import Segmented, States
from parrot_export.author import Authored
from parrot_export.bundle import require_room
from parrot_export.checkpoint import Checkpoint, open_checkpoint
from parrot_export.progress import Progress, no_progress
from parrot_export.scales import (
    SCALES_JSON,
    SCALES_NUMBERS,
    SCHEMA_VERSION,
    Product,
    Record,
    Rounded,
    Settings,
    fingerprint,
    to_json,
)
from parrot_export.weights import Block, WeightFile
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import MANIFEST_NAME, record_file
from parrot_runtime.publish import publish_directory
from parrot_runtime.strict import from_mapping

_RESULTS = {"encoder": ("image_features",), "experts": ("visual_tokens",), "decoder": ()}


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


def calibrate(
    request: CalibrationRequest,
    progress: Progress = no_progress,
    note: Callable[[str], None] = lambda _line: None,
) -> Record:
    """Calibrate and write ``request.output``; its record. ``note`` is told what a person should know.

    Raises InputError for anything wrong with the request, the data or the checkpoint (NaN among its activations too),
    and ParrotError where the disk is full; then nothing stands at the output.
    """
    _check_output(request)
    checkpoint = open_checkpoint(request.checkpoint, request.vision_tower)
    drawn = draw_samples(request.data, request.settings.per_language, request.settings.seed, request.languages)
    limit = checkpoint.architecture.decoder.max_positions
    encoded, too_long = encode_samples(checkpoint, drawn.samples, limit)
    for line in (*drawn.notes, *(f"{one.name} takes more than {limit} positions and is left out" for one in too_long)):
        note(line)
    _require_every_language(encoded, request.languages)
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


def _check_output(request: CalibrationRequest) -> None:
    if (request.checkpoint / MANIFEST_NAME).is_file():
        raise InputError(
            f"{request.checkpoint} is a bundle, whose weights are rounded and laid out already; give the checkpoint "
            "that it was exported from"
        )
    output = request.output
    if output.exists() and not request.force:
        raise InputError(f"{output} exists already; give --force to replace it, or another name with -o")
    if output.exists() and not (output / SCALES_JSON).is_file():
        raise InputError(f"{output} holds no scales, so --force does not replace it; give another name with -o")


def _require_every_language(encoded: Sequence[Encoded], languages: Sequence[str]) -> None:
    lacking = [code for code in languages if not any(one.sample.language == code for one in encoded)]
    if lacking:
        raise InputError(f"no sample is left in {', '.join(lacking)}; add shorter ones in every language")


def _job(identity: str, request: CalibrationRequest, encoded: Sequence[Encoded]) -> str:
    """What makes a cut run's work this run's: all that could change a number."""
    told = {
        "checkpoint": identity,
        "languages": request.languages,
        "settings": asdict(request.settings),
        "samples": [[one.sample.entry, one.ids.tolist()] for one in encoded],
        "data": [record_file(path).sha256 for path in request.data],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


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
        yield


class _Calibration:
    """The segments of all graphs, in order, with what was found of them kept below ``work``."""

    def __init__(
        self, checkpoint: Checkpoint, request: CalibrationRequest, encoded: Sequence[Encoded], work: Path
    ) -> None:
        self._checkpoint, self._request, self._encoded, self._work = checkpoint, request, encoded, work
        self._layers = LayerCalibrator(checkpoint, request.settings, request.languages)
        self._language = [request.languages.index(one.sample.language) for one in encoded]
        self._states = States(work / "states")
        self.products: dict[str, Product] = {}
        self.matrices: dict[str, Rounded] = {}
        self.arrays: dict[str, Path] = {}

    def run(self, progress: Progress) -> None:
        """Every segment that is not done yet; then ``products``, ``matrices`` and ``arrays`` are whole."""
        authored = self._graphs()
        self._feeds = Feeds(self._checkpoint, authored, self._work / "graphs", self._encoded)
        roles = {
            role: Segmented(
                self._work / "graphs",
                graph.file,
                authored.models[role],
                looked_at(authored.products[role]),
                _RESULTS[role],
                self._request.threads,
            )
            for role, graph in authored.graphs.items()
        }
        steps = sum(len(each.segments) for each in roles.values())
        with progress("Calibrating", 2 * steps * len(self._encoded)) as advance:
            for role, segmented in roles.items():
                self._run_role(role, segmented, looked_at(authored.products[role]), advance)

    def _graphs(self) -> Authored:
        """The graphs in ``work``, written once."""
        longest = max(len(one.ids) for one in self._encoded)
        authored, folder = plan_graphs(self._checkpoint, longest), self._work / "graphs"
        if not folder.exists():
            with publish_directory(folder) as beside:
                require_room(beside, authored.size)
                for file in authored.files:
                    file.write(beside)
                authored.save_graphs(beside)
        return authored

    def _run_role(self, role: str, segmented: Segmented, modules: dict, advance: Callable[[int], None]) -> None:
        before = None
        for number, segment in enumerate(segmented.segments):
            step = f"{role}-{number:03d}"
            if not (self._work / "parts" / step).exists():
                later = segmented.segments[number + 1 :]
                carried = {name for each in later for name in each.takes} | set(_RESULTS[role])
                exposed = {value: modules[value] for value in segment.exposed}
                self._run_segment(role, segmented, number, (before, step), carried, exposed, advance)
                if before:
                    self._states.drop(before)
            else:
                advance(2 * len(self._encoded))
            self._collect(step)
            before = step
        self._last = before

    def _run_segment(
        self,
        role: str,
        segmented: Segmented,
        number: int,
        steps: tuple[str | None, str],
        carried: set[str],
        exposed: dict[str, tuple[str, ...]],
        advance: Callable[[int], None],
    ) -> None:
        segment = segmented.segments[number]
        before, step = steps
        if not segment.gives and not exposed:
            self._keep(step, Part())
            return
        session = segmented.session(segment)
        chosen = list(self._feeds.chosen(role))
        totals = np.zeros(len(self._request.languages))
        np.add.at(totals, self._language, [len(rows) for rows in chosen])

        def run():
            for at, one in enumerate(self._encoded):
                state = self._states.read(before, at) if before else self._inputs(role, at)
                given = segmented.run(session, segment, state)
                self._states.write(step, at, {n: a for n, a in (state | given).items() if n in carried})
                yield self._language[at], one.sample.name, chosen[at], {v: _rows(given[v]) for v in exposed}
                advance(1)

        if exposed:
            self._keep(step, self._layers.calibrate(role, exposed, totals, run))
        else:
            for _ in run():
                advance(1)
            self._keep(step, Part())

    def _inputs(self, role: str, at: int) -> dict[str, np.ndarray]:
        if role == "encoder":
            return self._feeds.encoder(at)
        state = self._states.read(self._last, at)
        if role == "experts":
            return self._feeds.experts(at, state["image_features"])
        return self._feeds.decoder(at, state.get("visual_tokens", state.get("image_features")))

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


def _rows(array: np.ndarray) -> np.ndarray:
    """What enters a product as ``[rows, K]``."""
    return array.reshape(-1, array.shape[-1])


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
