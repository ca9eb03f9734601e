"""From a checkpoint to a published bundle: author, stream, check, verify, describe, publish; and its engines.

Everything is written into a hidden folder beside the final one. Only when the graphs are checked and verified does that
folder get its name; until then the final path holds the old bundle whole, or nothing. Engines are a cache of the
published bundle, built last: one that cannot be built takes no verified bundle away.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_export.author import Authored, author
from parrot_export.calibrated import Calibrated, calibrated_parts
from parrot_export.card import model_card
from parrot_export.checkpoint import Checkpoint, files_of_types, open_checkpoint, require_folder
from parrot_export.choice import Choice, choose
from parrot_export.description import model_dims, new_manifest
from parrot_export.hashing import Hashes
from parrot_export.plan import plan
from parrot_export.progress import Progress, no_progress
from parrot_export.weights import LinkedFile, Links, WeightFile
from parrot_runtime.backends.onnxruntime import import_onnxruntime
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.manifest import (
    MANIFEST_NAME,
    TOKENIZER_NAME,
    Graph,
    Manifest,
    ModelDims,
    record_file,
    record_files,
    to_json,
)
from parrot_runtime.publish import publish_directory

if TYPE_CHECKING:
    from parrot_export.engines.cache import Engines
    from parrot_export.reference import Reference

BUNDLES = Path("bundles")
CARD_NAME = "README.md"
# The longest sequence the training sees (Table 13), and so the most a KV cache is worth by default.
DEFAULT_MAX_LEN = 2048


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export. None takes the default: the newest finished stage 2, ``bundles/<name>-<precision>``, and the
    model's longest sequence up to ``DEFAULT_MAX_LEN``; the cpu and, where one is installed, TensorRT; its modern
    dialect; engines for the GPU here or the usual ones, for eight slots."""

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
    verify: bool = True
    force: bool = False


def export(
    request: ExportRequest,
    progress: Progress = no_progress,
    note: Callable[[str], None] = lambda _line: None,
    built: Callable[["Engines"], None] = lambda _engines: None,
) -> tuple[Path, Manifest]:
    """Export a checkpoint; the bundle's folder and its manifest.

    ``note`` is told what a person should know meanwhile, ``built`` of the engines of each GPU.
    Raises InputError for anything wrong with the request or the checkpoint, and ParrotError when the bundle fails its
    verification or cannot be written; in both cases nothing is published. When engines cannot be built, ParrotError
    says so, and the bundle stands.
    """
    _check_gate(request)
    choice = choose(request.precision, request.target, request.dialect, request.sms, request.max_batch)
    source = request.checkpoint or _newest_run()
    require_folder(source)
    name = _name(source)
    output = request.output or BUNDLES / f"{name}-{choice.suffix}"
    if request.verify:
        import_onnxruntime()  # said now, not after the weights are written
    if request.force:
        _require_bundle(output)
    with (
        _one_line_for_full_disks(output),
        publish_directory(output, force=request.force) as folder,
        Hashes() as hashes,
    ):
        if request.link:
            hashes.begin(files_of_types(source, choice.types))  # long before it is known which of them are linked
        checkpoint = open_checkpoint(source, request.vision_tower)
        calibrated = calibrated_parts(request.calibration, checkpoint, choice) if request.calibration else None
        dims = model_dims(checkpoint, _max_len(checkpoint, request.max_len))
        unknown = choice.tensorrt is not None and choice.tensorrt.rounds_activations and calibrated is None
        reference = _reference(checkpoint, dims, progress) if request.verify or unknown else None
        if calibrated is None:
            ranges = _ranges(checkpoint, dims, folder, reference, progress) if unknown and reference else None
            calibrated = Calibrated(checkpoint, ranges)
        parts = _author(calibrated, choice, dims.max_len, Links() if request.link else None)
        hashes.keep(file.source for file in parts.links.values())
        _write(parts, checkpoint, folder, hashes, progress)
        if request.link:
            note(parts.linked)
        files = record_files(folder, hashes.record)
        manifest = new_manifest(checkpoint, parts.graphs, choice, name=name, dims=dims, files=files)
        _check(folder, manifest)
        if request.verify and reference:
            manifest = replace(manifest, verification=_verify(folder, manifest, reference, progress))
            if _gated(request):
                gate = {"gate": _gate(folder, manifest, checkpoint, request, progress)}
                manifest = replace(manifest, verification=manifest.verification | gate)
        manifest = replace(manifest, verification=manifest.verification | calibrated.note)
        (folder / CARD_NAME).write_text(model_card(manifest, checkpoint.recipe.training), encoding="utf-8")
        files |= {CARD_NAME: record_file(folder / CARD_NAME)}
        manifest = replace(manifest, files=dict(sorted(files.items())))
        (folder / MANIFEST_NAME).write_text(to_json(manifest), encoding="utf-8")
    _build(output, choice, request.max_batch, progress, note, built)
    return output, manifest


def _build(
    output: Path,
    choice: Choice,
    max_batch: int | None,
    progress: Progress,
    note: Callable[[str], None],
    built: Callable[["Engines"], None],
) -> None:
    """The engines of the published bundle, or a note that says why there are none."""
    if choice.note:
        note(choice.note)
    if choice.builder is None:
        return
    from parrot_export.engines.cache import EngineRequest, build_engines

    try:
        for engines in build_engines(
            EngineRequest(bundle=output, max_batch=max_batch), progress, note, target=choice.builder
        ):
            built(engines)
    except ParrotError as error:
        raise ParrotError(f"{output} stands, but its engines are not all built: {error}") from error


def _require_bundle(output: Path) -> None:
    """``--force`` replaces a bundle, never something else that has its name."""
    if output.exists() and not (output / MANIFEST_NAME).is_file():
        raise InputError(f"{output} is no bundle, so --force does not replace it; give another name with -o")


def _newest_run() -> Path:
    from parrot_train.checkpoint import newest_finished_run

    return newest_finished_run(stage=2)


def _name(source: Path) -> str:
    """The run's configuration, or the name of a folder that no run wrote."""
    from parrot_train.checkpoint import read_run

    config = (read_run(source) or {}).get("config")
    return Path(config).stem if isinstance(config, str) and Path(config).stem else source.resolve().name


def _max_len(checkpoint: Checkpoint, asked: int | None) -> int:
    model = checkpoint.architecture
    limit, least = model.decoder.max_positions, model.vision.tokens + 2
    if asked is None:
        return min(limit, DEFAULT_MAX_LEN)
    if not least <= asked <= limit:
        raise InputError(
            f"--max-len is {asked}; this model takes {least} (one picture and a token) to {limit} (its positions)"
        )
    return asked


@dataclass(frozen=True)
class _Parts:
    """The graphs of a bundle, in either dialect or both; files that both read are the first's."""

    cpu: Authored | None
    tensorrt: Authored | None

    @property
    def all(self) -> list[Authored]:
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


def _author(calibrated: Calibrated, choice: Choice, max_len: int, links: Links | None) -> _Parts:
    checkpoint, ranges, scales = calibrated.checkpoint, calibrated.ranges, calibrated.codes
    cpu = author(checkpoint, choice.cpu, max_len, links=links, scales=scales) if choice.cpu else None
    if choice.tensorrt is None:
        return _Parts(cpu, None)
    tensorrt = author(checkpoint, choice.tensorrt, max_len, beside=cpu, ranges=ranges, links=links, scales=scales)
    return _Parts(cpu, tensorrt)


def _write(parts: _Parts, checkpoint: Checkpoint, folder: Path, hashes: Hashes, progress: Progress) -> None:
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


def require_room(folder: Path, size: int) -> None:
    """Raise ParrotError unless ``size`` bytes fit on the disk of ``folder``, which is hidden beside its final place."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ParrotError(
            f"{folder.parent}: {size / 2**20:,.0f} MiB of weights, but {free / 2**20:,.0f} MiB free; "
            "make room, or give another place with -o"
        )


def _reference(checkpoint: Checkpoint, dims: ModelDims, progress: Progress) -> "Reference":
    """What torch computes on the samples: what graphs are compared with, and what ranges are collected on."""
    from parrot_export.reference import STEPS, compute_reference, prepare
    from parrot_export.samples import verification_samples

    recipe = checkpoint.recipe
    samples = verification_samples()
    questions = prepare(checkpoint.tokenizer, dims.image_tokens, recipe.image, recipe.prompt, samples)
    needed = max(len(question.ids) for question in questions) + STEPS
    if needed > dims.max_len:
        raise InputError(
            f"--max-len is {dims.max_len}, and the questions of the verification take {needed} positions in this "
            "model's tokens; give that or more, or --no-verify"
        )
    with progress("Answering in torch", len(samples)) as advance:
        return compute_reference(checkpoint.load_model(), questions, progress=advance)


def _ranges(
    checkpoint: Checkpoint, dims: ModelDims, folder: Path, reference: "Reference", progress: Progress
) -> dict[str, float]:
    """How large the inputs of products get on the samples, by a copy in float32 that stands in ``folder`` meanwhile."""
    from parrot_export.ranges import sample_ranges

    with tempfile.TemporaryDirectory(dir=folder) as scratch, progress("Collecting ranges", 1) as advance:
        exact = author(checkpoint, plan("fp32", "tensorrt", "tensorrt-classic"), dims.max_len)
        require_room(folder, exact.size)
        ranges = sample_ranges(Path(scratch), exact, reference)
        advance(1)
    return ranges


def _check_gate(request: ExportRequest) -> None:
    """Raise InputError for what is asked of a gate that would not be there."""
    if not request.verify and (request.max_drop is not None or request.max_kl is not None):
        raise InputError("--max-drop and --max-kl are measured, which --no-verify leaves out; leave one of them out")
    if request.gate_samples is not None and not (request.verify and _gated(request)):
        raise InputError("--gate-samples is for --calibration, --max-drop or --max-kl, verified; give one of them too")


def _gated(request: ExportRequest) -> bool:
    """Whether the cost of rounding is measured: where it was calibrated, or a budget was named."""
    return request.calibration is not None or request.max_drop is not None or request.max_kl is not None


def _gate(
    folder: Path, manifest: Manifest, checkpoint: Checkpoint, request: ExportRequest, progress: Progress
) -> dict[str, Any]:
    """What rounding costs each language; see ``parrot_export.gate``."""
    from parrot_export.gate import SAMPLES, Budget, measure_gate
    from parrot_export.samples import graded_samples

    given = {"drop": request.max_drop, "kl": request.max_kl}
    budget = Budget(**{name: value for name, value in given.items() if value is not None})
    samples = list(graded_samples(request.gate_samples or SAMPLES))
    with progress("Measuring every language", len(samples)) as advance:
        return measure_gate(folder, manifest, checkpoint.load_model(), samples, budget, advance)


def _check(folder: Path, manifest: Manifest) -> None:
    from parrot_export.check import check_graphs

    check_graphs(folder, manifest)


def _verify(folder: Path, manifest: Manifest, reference: "Reference", progress: Progress) -> dict[str, Any]:
    from parrot_export.verify import VerificationError, compare

    try:
        with progress("Verifying against torch", len(reference.questions)) as advance:
            return compare(folder, manifest, reference, progress=advance)
    except VerificationError as error:
        finer = {"fp32": None, "fp16": "--fp32", "bf16": "--fp32"}.get(manifest.precision, "--fp16")
        way_out = f"try {finer}, and report this if that fails too" if finer else "report this"
        raise VerificationError(f"{error}; nothing was published: {way_out}") from error


@contextmanager
def _one_line_for_full_disks(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ParrotError(
            f"{output}: cannot be written ({error.strerror or error}); make room or give another place with -o"
        ) from error
