"""A bundle's engines, built where they are missing or stale and left alone where they are current.

One folder per GPU and TensorRT, published whole or not at all. Builders of one bundle take turns: the second finds what
the first made. What a killed one leaves behind, the next removes.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parrot_export.engines.builder import build_engine
from parrot_export.engines.callbacks import STEPS
from parrot_export.engines.memory import require_memory
from parrot_export.engines.profiles import limits, profiles
from parrot_export.engines.sources import GraphFacts, read_graph
from parrot_export.engines.targets import Target, choose_target
from parrot_export.progress import Progress, no_progress
from parrot_runtime.engines import (
    BUILD_NAME,
    BUILD_SCHEMA,
    ENGINES,
    BuildOptions,
    BuildRecord,
    EngineRecord,
    Profile,
    engine_folder,
    engine_name,
    read_build,
    tensorrt_graphs,
    to_build_json,
    why_stale,
)
from parrot_runtime.errors import BundleError, InputError, ParrotError
from parrot_runtime.integrity import verify_files
from parrot_runtime.machine import remember_build, state_folder
from parrot_runtime.manifest import Manifest, load_manifest
from parrot_runtime.publish import publish_directory, remove_leftovers

TIMINGS_NAME = "timing.cache"


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """What to build. None takes the default: the GPU here or the usual ones, whatever TensorRT builds for them,
    ``DEFAULT_MAX_BATCH`` and the bundle's longest sequence."""

    bundle: Path
    sms: tuple[int, ...] | None = None
    flavour: str | None = None
    max_batch: int | None = None
    max_len: int | None = None
    options: BuildOptions = field(default_factory=BuildOptions)
    force: bool = False


@dataclass(frozen=True)
class Engines:
    """The engines of one GPU: their folder and record, and why they were built now; None when they were current."""

    folder: Path
    record: BuildRecord
    reason: str | None

    def describe(self) -> list[str]:
        """One line per engine for a person."""
        return [
            f"{self.folder / engine_name(role)}: {engine.size / 2**20:.1f} MiB, "
            + (f"built in {engine.seconds:.1f} s" if self.reason else f"current (built in {engine.seconds:.1f} s)")
            for role, engine in self.record.engines.items()
        ]

    def as_data(self) -> dict[str, Any]:
        """The same for a program."""
        return {"folder": str(self.folder), "reason": self.reason, "build": asdict(self.record)}


@dataclass(frozen=True)
class _Part:
    """One graph to build: its facts and the profiles it is built with."""

    facts: GraphFacts
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class _Work:
    """A request that was looked through: every graph of the bundle, and who builds."""

    request: EngineRequest
    manifest: Manifest
    parts: Mapping[str, _Part]
    target: Target
    progress: Progress
    note: Callable[[str], None]

    def folder(self, sm: int) -> Path:
        return engine_folder(self.request.bundle, sm, self.target.flavour.name, self.target.flavour.version)


def build_engines(
    request: EngineRequest,
    progress: Progress = no_progress,
    note: Callable[[str], None] = lambda _line: None,
    *,
    target: Target | None = None,
) -> Iterator[Engines]:
    """Yield the engines of each SM, as they are ready; ``note`` is told what a person should know meanwhile.

    ``target`` is what ``choose_target`` finds for the request, unless given. Raises InputError for anything wrong with
    request or bundle, and ParrotError when a build fails; engines that stood before stand then too.
    """
    manifest = load_manifest(request.bundle)
    graphs = tensorrt_graphs(manifest)
    if not graphs:
        raise BundleError(f"{request.bundle}: no graphs for TensorRT in this bundle; export one with --target tensorrt")
    _require_options(request.options)
    bounds = limits(manifest.model, max_batch=request.max_batch, max_len=request.max_len)
    parts = {
        role: _Part(read_graph(request.bundle, graph, manifest), profiles(role, graph, bounds))
        for role, graph in graphs.items()
    }
    target = target or choose_target(request.sms, request.flavour)
    work = _Work(request, manifest, parts, target, progress, note)
    for sm in _sms(work):
        yield _engines(work, sm)


def _engines(work: _Work, sm: int) -> Engines:
    """The current engines of ``sm``, built where they must be."""
    request, folder = work.request, work.folder(sm)
    with _one_line_for_the_disk(folder), _turn(request.bundle / ENGINES, work.note):
        record, reason = _current(work, folder)
        if record is not None and not request.force:
            return Engines(folder, record, None)
        verify_files(request.bundle, work.manifest)
        _require_room(work)
        with publish_directory(folder, force=True) as beside:
            record = _build(work, sm, beside)
            (beside / BUILD_NAME).write_text(to_build_json(record), encoding="utf-8")
        _remember(folder / BUILD_NAME, work.note)
        return Engines(folder, record, reason or "--force")


def _remember(record: Path, note: Callable[[str], None]) -> None:
    """Engines are code, and ``parrot-run`` loads those that it can know were built on this machine."""
    try:
        remember_build(record)
    except OSError as error:
        note(f"{state_folder()}: cannot be written ({error.strerror}); parrot-run will want --trust-engines")


def _current(work: _Work, folder: Path) -> tuple[BuildRecord | None, str | None]:
    """The record of engines that are what this request would build; else None and why they are not."""
    if not folder.exists():
        return None, "there were none"
    try:
        record = read_build(folder)
    except BundleError as error:
        return None, str(error)
    stale = why_stale(record, work.manifest)
    if stale is None and engine_folder(work.request.bundle, record.sm, record.flavour, record.version) != folder:
        stale = "they were built for another GPU or by another TensorRT"
    if stale is None and record.options != work.request.options:
        stale = "they were built with other options"
    for role, part in work.parts.items():
        if stale is None and record.engines[role].source != part.facts.source:
            stale = f"the {role} reads other files now"
        if stale is None and record.engines[role].profiles != part.profiles:
            stale = f"the {role} was built for other shapes"
    return (None, stale) if stale else (record, None)


def _build(work: _Work, sm: int, beside: Path) -> BuildRecord:
    """Build every graph into the folder ``beside``, with the timings of the engines that stand, and keep the new."""
    flavour, options, records = work.target.flavour, work.request.options, {}
    old = work.folder(sm) / TIMINGS_NAME
    timings = old.read_bytes() if old.is_file() and not old.is_symlink() else b""
    for role, part in work.parts.items():
        source, engine = work.request.bundle / part.facts.source.file, beside / engine_name(role)
        with work.progress(f"Building {role} for SM {sm}", STEPS) as advance:
            built = build_engine(source, engine, flavour, sm, part.profiles, options, timings=timings, advance=advance)
        timings, seconds = built.timings, round(built.seconds, 3)
        records[role] = EngineRecord(
            part.facts.source, part.profiles, built.size, built.sha256, seconds, built.warnings
        )
    if timings:
        (beside / TIMINGS_NAME).write_bytes(timings)
    return BuildRecord(BUILD_SCHEMA, sm, flavour.name, flavour.version, options, records)


def _sms(work: _Work) -> tuple[int, ...]:
    """The SMs to build for. One that was named must have every type; of the usual ones those that lack one are left."""
    target, facts, sms = work.target, [part.facts for part in work.parts.values()], work.target.sms
    if not target.asked and target.gpu is None:
        first = max(graph.first_sm for graph in facts)
        sms = tuple(sm for sm in target.sms if sm >= first)
        named = ", ".join(map(str, sms))
        work.note(f"there is no GPU here: building for SM {named} with {target.flavour}; name others with --sm")
    for sm in sms:
        for graph in facts:
            graph.require(sm)
    return sms


def _require_options(options: BuildOptions) -> None:
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise InputError(f"--workspace is {options.workspace_mib}; expected 1 MiB or more")


def _require_room(work: _Work) -> None:
    """Memory for the largest graph, and disk for all; an engine without its weights is small."""
    bundle, graphs = work.request.bundle, [part.facts for part in work.parts.values()]
    for graph in graphs:
        require_memory(graph.weight_bytes, streams=work.target.flavour.streams, graph=graph.source.file)
    needed, free = sum(graph.weight_bytes for graph in graphs), shutil.disk_usage(bundle).free
    if work.request.options.strip_weights:
        return
    if free < needed:
        raise ParrotError(
            f"{bundle / ENGINES}: the engines take at least {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are "
            "free; make room, or delete engines of GPUs that are not used"
        )


@contextmanager
def _turn(engines: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Be the only one who builds in the folder ``engines``; the lock goes with the process, however it ends."""
    engines.mkdir(exist_ok=True)
    descriptor = os.open(engines, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"{engines}: somebody else builds engines of this bundle; waiting for them to finish")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        remove_leftovers(engines)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _one_line_for_the_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ParrotError(
            f"{folder}: cannot be written ({error.strerror or error}); make room, or check who may write there"
        ) from error
