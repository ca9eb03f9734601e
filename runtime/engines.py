"""A bundle's engines: where they lie, what they were made of, and whether they still belong to the bundle.

``engines/sm<SM>-<flavour>-<version>/`` holds one ``.engine`` per graph and ``build.json``. Engines are a cache: made on
a machine for a machine, never among the files a manifest lists, and rebuilt by ``parrot-export engines``. An engine
belongs to a bundle when it was made from the very graph and weights the manifest lists, for this GPU, by this version.
An engine file is code, so whoever runs one asks ``read_build`` first.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.manifest import Graph, Manifest
from parrot_runtime.strict import from_mapping, parse_json

ENGINES = "engines"
BUILD_NAME = "build.json"
BUILD_SCHEMA = 1
_MAX_BUILD_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_REBUILD = "run `parrot-export engines` on this bundle"


@dataclass(frozen=True)
class ShapeRange:
    """The smallest, the expected and the largest shape of one input."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(f"the shapes {self.min}, {self.opt} and {self.max} have different numbers of axes")
        if any(not 0 <= a <= b <= c for a, b, c in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError(f"expected 0 <= min <= opt <= max, got {self.min}, {self.opt}, {self.max}")


@dataclass(frozen=True)
class Profile:
    """One way to call a graph; an engine keeps its profiles in this order. Inputs of fixed shape stand in it too."""

    name: str
    shapes: dict[str, ShapeRange]


@dataclass(frozen=True)
class BuildOptions:
    """What the builder was told beside graph and profiles.

    workspace_mib: the most memory one kernel may scratch in; None leaves it to TensorRT, which takes what the GPU has.
    strip_weights: the engine holds no weights; whoever runs it refits them from the graph.
    """

    workspace_mib: int | None = None
    strip_weights: bool = False


@dataclass(frozen=True)
class Source:
    """What an engine is made of: a graph's file, its hash, and the hash of every file its weights lie in."""

    file: str
    sha256: str
    weights: dict[str, str]


@dataclass(frozen=True)
class EngineRecord:
    """One engine: its source and profiles, its size in bytes and hash, the seconds it took, and TensorRT's warnings."""

    source: Source
    profiles: tuple[Profile, ...]
    size: int
    sha256: str
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class BuildRecord:
    """``build.json``: for which GPU, by what, with which options; and per role the engine."""

    schema_version: int
    sm: int
    flavour: str
    version: str
    options: BuildOptions
    engines: dict[str, EngineRecord]


def tensorrt_graphs(manifest: Manifest) -> Mapping[str, Graph]:
    """The graphs of a bundle that TensorRT takes, by role; empty for a bundle without them."""
    return manifest.tensorrt


def engine_folder(bundle: Path, sm: int, flavour: str, version: str) -> Path:
    """Where the engines of ``bundle`` for this GPU and this TensorRT lie."""
    return bundle / ENGINES / f"sm{sm}-{flavour}-{version}"


def engine_name(role: str) -> str:
    """The file of a role's engine in its folder."""
    return f"{role}.engine"


def to_build_json(record: BuildRecord) -> str:
    """The record as JSON text; ``read_build`` gives the same object back."""
    return json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_build(folder: Path) -> BuildRecord:
    """Read ``folder/build.json`` and check that the engines it lists are there, whole and unaltered.

    Whether they are those of a bundle is ``why_stale``'s question. Raises BundleError: nothing built here, a record
    that cannot be read, a link in place of a file, a size or hash that differs.
    """
    path = folder / BUILD_NAME
    if folder.is_symlink() or path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder}: there are no engines; {_REBUILD}")
    try:
        if path.stat().st_size > _MAX_BUILD_BYTES:
            raise BundleError(f"{path}: over {_MAX_BUILD_BYTES} bytes, which no build needs; {_REBUILD}")
        data = parse_json(path.read_bytes())
        if isinstance(data, Mapping) and data.get("schema_version") != BUILD_SCHEMA:
            raise BundleError(f"{path}: written by another version of Parrot; {_REBUILD}")
        record = from_mapping(BuildRecord, data, where=str(path))
        for role, engine in record.engines.items():
            _check_engine(folder / engine_name(role), engine)
    except (ValueError, InputError, OSError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"{path}: not a build that can be read ({' '.join(str(error).split())}); {_REBUILD}"
        ) from error
    return record


def why_stale(record: BuildRecord, manifest: Manifest) -> str | None:
    """Why the engines of ``record`` are not those of the manifest's graphs, in a few words; None when they are."""
    graphs = tensorrt_graphs(manifest)
    if set(record.engines) != set(graphs):
        return f"they are {_listed(record.engines)}, the bundle's graphs {_listed(graphs)}"
    for role, graph in graphs.items():
        source = record.engines[role].source
        for name, sha256 in {source.file: source.sha256, **source.weights}.items():
            listed = manifest.files.get(name)
            if listed is None or listed.sha256 != sha256:
                return f"{name} is another than the one they were built from"
        if source.file != graph.file:
            return f"the {role} was built from {source.file}, and the bundle's is {graph.file}"
    return None


def _check_engine(path: Path, engine: EngineRecord) -> None:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != engine.size:
        raise BundleError(f"{path}: missing, a link or cut; {_REBUILD}")
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != engine.sha256:
        raise BundleError(f"{path}: altered since it was built; {_REBUILD}")


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
