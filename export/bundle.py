"""From a checkpoint to a published bundle: author, stream, check, verify, describe, publish.

Everything is written into a hidden folder beside the final one. Only when the graphs are checked and verified does that
folder get its name; until then the final path holds the old bundle whole, or nothing.
"""

import importlib.metadata
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parrot_export.author import Authored, author
from parrot_export.card import model_card
from parrot_export.checkpoint import Checkpoint, open_checkpoint, require_folder
from parrot_export.plan import Plan, plan
from parrot_export.progress import Progress, no_progress
from parrot_runtime.backends.onnxruntime import import_onnxruntime
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    TOKENIZER_NAME,
    Manifest,
    ModelDims,
    record_files,
    to_json,
)
from parrot_runtime.publish import publish_directory

BUNDLES = Path("bundles")
CARD_NAME = "README.md"
# The longest sequence the training sees (Table 13), and so the most a KV cache is worth by default.
DEFAULT_MAX_LEN = 2048
_TOOLS = ("parrot-edge", "onnx", "onnx-ir", "onnxruntime", "torch", "transformers", "numpy", "safetensors")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export. None takes the default: the newest finished stage 2, ``bundles/<name>-<precision>``, and the
    model's longest sequence up to ``DEFAULT_MAX_LEN``."""

    checkpoint: Path | None = None
    output: Path | None = None
    precision: str = "fp16"
    target: str = "cpu"
    max_len: int | None = None
    vision_tower: Path | None = None
    verify: bool = True
    force: bool = False


def export(request: ExportRequest, progress: Progress = no_progress) -> tuple[Path, Manifest]:
    """Export a checkpoint; the bundle's folder and its manifest.

    Raises InputError for anything wrong with the request or the checkpoint, and ParrotError when the bundle fails its
    verification or cannot be written; in both cases nothing is published.
    """
    chosen = plan(request.precision, request.target)
    source = request.checkpoint or _newest_run()
    require_folder(source)
    name = _name(source)
    output = request.output or BUNDLES / f"{name}-{chosen.precision}"
    if request.verify:
        import_onnxruntime()  # said now, not after the weights are written
    if request.force:
        _require_bundle(output)
    with _one_line_for_full_disks(output), publish_directory(output, force=request.force) as folder:
        checkpoint = open_checkpoint(source, request.vision_tower)
        max_len = _max_len(checkpoint, request.max_len)
        authored = author(checkpoint, chosen, max_len)
        _write(authored, checkpoint, folder, progress)
        manifest = _manifest(checkpoint, authored, chosen, name=name, max_len=max_len, folder=folder)
        _check(folder, manifest)
        if request.verify:
            manifest = replace(manifest, verification=_verify(folder, manifest, checkpoint, progress))
        (folder / CARD_NAME).write_text(model_card(manifest, checkpoint.recipe.training), encoding="utf-8")
        card = {path: record for path, record in record_files(folder).items() if path == CARD_NAME}
        manifest = replace(manifest, files=dict(sorted((manifest.files | card).items())))
        (folder / MANIFEST_NAME).write_text(to_json(manifest), encoding="utf-8")
    return output, manifest


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


def _write(authored: Authored, checkpoint: Checkpoint, folder: Path, progress: Progress) -> None:
    free = shutil.disk_usage(folder).free
    if free < authored.size:
        raise ParrotError(
            f"{folder.parent}: {authored.size / 2**20:,.0f} MiB of weights, but {free / 2**20:,.0f} MiB free; "
            "make room, or give another place with -o"
        )
    with progress("Writing weights", authored.size) as advance:
        for file in authored.files:
            file.write(folder, advance)
    authored.save_graphs(folder)
    shutil.copyfile(checkpoint.tokenizer, folder / TOKENIZER_NAME)


def _manifest(
    checkpoint: Checkpoint, authored: Authored, chosen: Plan, *, name: str, max_len: int, folder: Path
) -> Manifest:
    """The manifest of what stands in ``folder``, not verified yet and without a card."""
    model = checkpoint.architecture
    decoder, experts = model.decoder, model.experts
    dims = ModelDims(
        hidden_size=decoder.width,
        layers=decoder.layers,
        heads=decoder.heads,
        kv_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        vocab_size=decoder.vocabulary,
        max_len=max_len,
        image_tokens=model.vision.tokens,
        experts=experts.count if experts else 0,
        expert_kind=experts.kind if experts else "mlp",
        residual=experts.residual if experts else "paper",
        alpha=experts.alpha if experts else 1.0,
    )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        model=dims,
        languages=CODES,
        image=checkpoint.recipe.image,
        prompt=checkpoint.recipe.prompt,
        target=chosen.target,
        precision=chosen.precision,
        kv_dtype=chosen.kv_dtype,
        graphs=authored.graphs,
        files=record_files(folder),
        verification={"status": "skipped"},
        tools=_tool_versions(),
    )


def _check(folder: Path, manifest: Manifest) -> None:
    from parrot_export.check import check_graphs

    check_graphs(folder, manifest)


def _verify(folder: Path, manifest: Manifest, checkpoint: Checkpoint, progress: Progress) -> dict[str, Any]:
    from parrot_export.samples import verification_samples
    from parrot_export.verify import VerificationError, verify

    samples = verification_samples()
    try:
        with progress("Verifying against torch", len(samples)) as advance:
            return verify(folder, manifest, checkpoint.load_model(), samples, progress=advance)
    except VerificationError as error:
        way_out = "report this" if manifest.precision == "fp32" else "try --fp32, and report this if that fails too"
        raise VerificationError(f"{error}; nothing was published: {way_out}") from error


def _tool_versions() -> dict[str, str]:
    """Versions of what made the bundle, of the tools that are installed."""
    versions = {}
    for tool in _TOOLS:
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@contextmanager
def _one_line_for_full_disks(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ParrotError(
            f"{output}: cannot be written ({error.strerror or error}); make room or give another place with -o"
        ) from error
