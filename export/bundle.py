"""From a checkpoint to a published bundle: author, stream, check, verify, describe, publish; and its engines.

Everything is written into a hidden folder beside the final one. Only when the graphs are checked and verified does that
folder get its name; until then the final path holds the old bundle whole, or nothing. Engines are a cache of the
published bundle, built last: one that cannot be built takes no verified bundle away.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_export.calibrated import Calibrated, calibrated_parts
from parrot_export.card import model_card
from parrot_export.checkpoint import Checkpoint, files_of_types, open_checkpoint, require_folder
from parrot_export.choice import Choice, choose
from parrot_export.description import model_dims, new_manifest
from parrot_export.hashing import Hashes
from parrot_export.judging import asking_for, judge, kept_costs, questions_for, search, write_frontier
from parrot_export.parts import author_parts, write_parts
from parrot_export.progress import Progress, no_progress
from parrot_export.request import ExportRequest
from parrot_export.scales import Scales, read_scales
from parrot_export.weights import Links
from parrot_runtime.backends.onnxruntime import import_onnxruntime
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.integrity import record_file, record_files
from parrot_runtime.manifest import MANIFEST_NAME, FileRecord, Manifest, ModelDims, to_json
from parrot_runtime.publish import is_free, publish_directory

if TYPE_CHECKING:
    from parrot_export.engines.cache import Engines
    from parrot_export.reference import Reference

BUNDLES = Path("bundles")
CARD_NAME = "README.md"
# The longest sequence the training sees (Table 13), and so the most a KV cache is worth by default.
DEFAULT_MAX_LEN = 2048


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
    request.check()
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
        dims = model_dims(checkpoint, _max_len(checkpoint, request.max_len))
        scales = read_scales(request.calibration, checkpoint) if request.calibration else None
        asking, found = asking_for(request, checkpoint, scales, dims.max_len, note), None
        if request.mixed:
            found = search(request, scales, asking, dims, (name, output, folder), progress)
            choice, calibrated = found.plan.choice, found.plan.calibrated
        else:
            questions = questions_for(request, asking)
            choice, calibrated = _rounding(request, checkpoint, scales, choice)
        unknown = choice.tensorrt is not None and choice.tensorrt.rounds_activations and calibrated is None
        reference = _reference(checkpoint, dims, progress) if request.verify else None
        if calibrated is None:
            calibrated = Calibrated(checkpoint, _ranges(checkpoint, folder, progress) if unknown else None)
        parts = author_parts(calibrated, choice, dims.max_len, Links() if request.link else None)
        hashes.keep(file.source for file in parts.links.values())
        write_parts(parts, checkpoint, folder, hashes, progress)
        if request.link:
            note(parts.linked)
        files = record_files(folder, hashes.record)
        manifest = new_manifest(checkpoint, parts.graphs, choice, name=name, dims=dims, files=files)
        _check_graphs(folder, manifest)
        if request.verify and reference:
            manifest = replace(manifest, verification=_verify(folder, manifest, reference, progress))
            if found:
                _require_same(files, found.plan.files)
                manifest = replace(manifest, verification=manifest.verification | {"gate": found.plan.gate})
            elif request.gated:
                gate = judge(folder, manifest, checkpoint, questions, request.budget, progress)
                manifest = replace(manifest, verification=manifest.verification | {"gate": gate})
        manifest = replace(manifest, verification=manifest.verification | calibrated.note)
        (folder / CARD_NAME).write_text(model_card(manifest, checkpoint.recipe.training), encoding="utf-8")
        files |= {CARD_NAME: record_file(folder / CARD_NAME)} | write_frontier(folder, found, note)
        manifest = replace(manifest, files=dict(sorted(files.items())))
        (folder / MANIFEST_NAME).write_text(to_json(manifest), encoding="utf-8")
    if found:
        kept_costs(output).unlink(missing_ok=True)
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
    if not is_free(output) and not (output / MANIFEST_NAME).is_file():
        raise InputError(f"{output} is no bundle, so --force does not replace it; give another name with -o")


def _newest_run() -> Path:
    from parrot_train.checkpoint import newest_finished_run

    return newest_finished_run(stage=2)


def _name(source: Path) -> str:
    """The run's configuration, or the name of a folder that no run wrote."""
    from parrot_train.checkpoint import read_run

    config = (read_run(source) or {}).get("config")
    name = Path(config).stem if isinstance(config, str) and Path(config).stem else source.resolve().name
    if not name.strip() or not name.isprintable():
        raise InputError(f"{name!r} cannot be a bundle's name; rename the checkpoint's folder, or link to it")
    return name


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


def _reference(checkpoint: Checkpoint, dims: ModelDims, progress: Progress) -> "Reference":
    """What torch computes on the samples, which graphs are compared with."""
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


def _ranges(checkpoint: Checkpoint, folder: Path, progress: Progress) -> dict[str, float]:
    """How large the inputs of products get; the work is done in ``folder``, and gone afterwards."""
    from parrot_export.ranges import sample_ranges

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return sample_ranges(checkpoint, Path(scratch), progress)


def _rounding(
    request: ExportRequest, checkpoint: Checkpoint, scales: Scales | None, choice: Choice
) -> tuple[Choice, Calibrated | None]:
    """What is asked for, with the bits of the embeddings and the output layer, and what a calibration makes of it."""
    tied = checkpoint.architecture.decoder.tied
    choice = choice.with_bits(request.embedding_bits, request.lm_head_bits, tied=tied)
    return choice, calibrated_parts(scales, checkpoint, choice) if scales else None


def _require_same(files: dict[str, FileRecord], measured: dict[str, FileRecord]) -> None:
    """Raise ParrotError unless ``files`` are those that a search has measured."""
    if files != measured:
        raise ParrotError("the files are not those of the plan that was measured; export again, and report this")


def _check_graphs(folder: Path, manifest: Manifest) -> None:
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
