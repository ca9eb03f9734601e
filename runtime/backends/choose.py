"""Which engine runs a bundle here: TensorRT where its engines stand for this GPU, onnxruntime everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_runtime.engines import BUILD_NAME, ENGINES, engine_folder, read_build, why_stale
from parrot_runtime.errors import BundleError, InputError, ParrotError
from parrot_runtime.machine import built_here
from parrot_runtime.manifest import Manifest, require_graphs
from parrot_runtime.names import BACKENDS, BackendName

if TYPE_CHECKING:
    from parrot_runtime.backends.base import Backend
    from parrot_runtime.engines import BuildRecord
    from parrot_runtime.flavours import Flavour

Note = Callable[[str], None]


@dataclass(frozen=True)
class Engines:
    """Engines of a bundle that this machine can run: their folder and record, and the TensorRT that built them."""

    folder: Path
    build: BuildRecord
    flavour: Flavour


def choose_engines(
    folder: Path,
    manifest: Manifest,
    backend: BackendName = "auto",
    *,
    trust_engines: bool = False,
    note: Note = lambda _line: None,
) -> Engines | None:
    """The engines to run the bundle in ``folder`` with; None when onnxruntime runs it.

    ``auto`` takes engines that stand there for the GPU here, if one is, and tells ``note`` why it passes over any.
    Raises InputError for a ``backend`` that cannot be had, BundleError for a bundle that nothing here runs.
    """
    if backend not in BACKENDS:
        raise InputError(f"the backend '{backend}' is not known; choose among {', '.join(BACKENDS)}")
    try:
        if backend == "tensorrt" or (backend == "auto" and may_have_engines(folder, manifest)):
            return find_engines(folder, manifest, trust_engines=trust_engines)
    except ParrotError as error:  # the driver's own trouble too
        if backend == "tensorrt" or not manifest.graphs:
            raise
        note(f"onnxruntime runs this bundle, not TensorRT: {error}")
    require_graphs(folder, manifest)
    return None


def may_have_engines(folder: Path, manifest: Manifest) -> bool:
    """Whether to look for engines at all: a machine without a GPU has no use for any, and nothing to say of them.

    Nothing is read: whether they are whole, the bundle's own and trusted is ``find_engines``' question. Raises
    ParrotError for a GPU whose driver does not start.
    """
    from parrot_runtime.gpu import present_gpu

    engines = folder / ENGINES
    return bool(manifest.tensorrt) and engines.is_dir() and any(engines.iterdir()) and present_gpu() is not None


def create_backend(folder: Path, manifest: Manifest, engines: Engines | None, *, threads: int | None = None) -> Backend:
    """What runs the bundle: TensorRT with ``engines``, onnxruntime without, on so many ``threads``.

    Raises InputError when that is not installed, BundleError for files that are not the manifest's, ParrotError when
    the device fails.
    """
    if engines is None:
        from parrot_runtime.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(folder, manifest, threads=threads)
    if threads is not None:
        raise InputError(f"--threads is {threads}, and TensorRT runs on the GPU; leave it out, or take onnxruntime")
    from parrot_runtime.backends.tensorrt import TensorRTBackend

    return TensorRTBackend(engines.folder, engines.build, manifest, engines.flavour)


def find_engines(folder: Path, manifest: Manifest, *, trust_engines: bool = False) -> Engines:
    """The engines for the GPU here, by a TensorRT that is installed.

    An engine is code that will run, so it must have been built on this machine, or be trusted on purpose. Raises
    InputError when there are none, or none that may be loaded, with the reason of each.
    """
    from parrot_runtime.flavours import installed, load_flavour
    from parrot_runtime.gpu import present_gpu

    build_them = f"run `parrot-export engines {folder}`"
    if not manifest.tensorrt:
        raise BundleError(f"{folder}: this bundle has no graphs for TensorRT; export it again with one installed")
    gpu = present_gpu()
    if gpu is None:
        raise InputError("there is no NVIDIA GPU here; take --backend onnxruntime")
    if not installed():
        raise InputError(
            f"a {gpu.name} is here and no TensorRT is installed; run `pip install 'parrot-edge[tensorrt-rtx]'`"
        )
    reasons = []
    for name in installed():
        try:
            flavour = load_flavour(name)
            found = engine_folder(folder, gpu.sm, flavour.name, flavour.version)
            build = read_build(found)
        except InputError as error:
            reasons.append(str(error))
            continue
        stale = why_stale(build, manifest)
        if stale is not None:
            reasons.append(f"{found}: {stale}; {build_them}")
        elif (build.sm, build.flavour, build.version) != (gpu.sm, flavour.name, flavour.version):
            reasons.append(f"{found}: built for another GPU or by another TensorRT; {build_them}")
        elif build.options.strip_weights:
            reasons.append(f"{found}: engines without weights, which are not run yet; {build_them}")
        elif not trust_engines and not built_here(found / BUILD_NAME):
            reasons.append(
                f"{found}: these engines were not built on this machine, and an engine is code; {build_them} --force, "
                "or say --trust-engines if you trust who built them"
            )
        else:
            return Engines(found, build, flavour)
    raise InputError("; ".join(reasons))
