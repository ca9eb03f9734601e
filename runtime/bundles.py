"""Which bundle to run when none is named."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parrot_runtime.backends.choose import may_have_engines
from parrot_runtime.errors import BundleError, ParrotError
from parrot_runtime.manifest import MANIFEST_NAME, Manifest, load_manifest, require_graphs
from parrot_runtime.names import BackendName

BUNDLES = Path("bundles")
SHIPPED = Path(__file__).parent / "bundles"


@dataclass(frozen=True)
class Found:
    """A bundle's ``folder``, why it was taken, and the newer ones that were passed over, each with the reason."""

    folder: Path
    reason: str
    skipped: tuple[str, ...] = ()


def find_bundle(bundles: Path = BUNDLES, shipped: Path = SHIPPED, *, backend: BackendName = "auto") -> Found:
    """The newest bundle under ``bundles`` that this machine can run, by ``backend``, else the package's own.

    Only manifests are read here; loading checks the files. Raises BundleError when there is none.
    """
    skipped: list[str] = []
    for folders, reason in ((bundles, f"the newest under {bundles}/"), (shipped, "shipped with the package")):
        for folder in _newest_first(folders):
            try:
                manifest = load_manifest(folder)
                if not _may_run_engines(folder, manifest, backend):
                    require_graphs(folder, manifest)
            except BundleError as error:
                skipped.append(str(error))
                continue
            return Found(folder, reason, tuple(skipped))
    raise BundleError(
        f"no bundle to run: none under {bundles}/ and none in the package"
        f"{f' ({skipped[0]})' if skipped else ''}; run `parrot-export`, or name one with --bundle"
    )


def _may_run_engines(folder: Path, manifest: Manifest, backend: BackendName) -> bool:
    try:
        return backend != "onnxruntime" and may_have_engines(folder, manifest)
    except ParrotError:  # a driver that does not start: whoever asks for TensorRT is told when the bundle is loaded
        return False


def _newest_first(folder: Path) -> Iterator[Path]:
    """Bundles in ``folder`` by the time of their manifests; hidden folders are exports in the making."""
    manifests = [path for path in folder.glob(f"*/{MANIFEST_NAME}") if not path.parent.name.startswith(".")]
    for manifest in sorted(manifests, key=lambda path: (path.stat().st_mtime_ns, path.parent.name), reverse=True):
        yield manifest.parent
