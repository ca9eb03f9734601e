"""``parrot.json``: what a bundle holds, what it was made of, and whether it is still whole.

Export writes it with ``to_json``; everything that runs a bundle reads it with ``load_manifest`` and checks the files
with ``integrity.verify_files`` before any engine sees them. A manifest is a claim by whoever made the bundle, so
nothing in it is believed without a look: unknown or repeated keys, NaN, paths that leave the folder, links, and files
whose size or hash differ are refused, each with one line that names the file and the way out.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.image import ImageRecipe
from parrot_runtime.names import Precision, Target, TensorRTDialect
from parrot_runtime.strict import from_mapping, parse_json

SCHEMA_VERSION = 1
MANIFEST_NAME = "parrot.json"
# The key under which the manifest vouches for itself.
_SEAL = "sha256"
TOKENIZER_NAME = "tokenizer.json"
EMBEDDING_NAME = "embed_tokens.safetensors"
# Caches of a bundle are made on the machine that runs it: they are never canonical, so never listed.
CACHE_FOLDERS = ("engines",)
# What onnxruntime's graphs are written in; the other precisions are TensorRT's alone.
_ORT_PRECISIONS = ("fp32", "fp16", "int8", "int4", "mixed")
# A second decoder that extends the cache alone, with kernels for many rows: onnxruntime's graphs may have one.
PREFILL = "prefill"
_MAX_MANIFEST_BYTES = 16 << 20
AGAIN = "export the bundle again, or copy it again from where it came"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output of a graph; a named axis is free, a number is fixed."""

    name: str
    dtype: Literal["float32", "float16", "bfloat16", "int32", "int64", "bool"]
    axes: tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """One graph of the bundle: its file (relative, ``/`` between folders) and what goes in and out, in order.

    ``weight_bytes`` are the bytes of weights that a run reads from memory; ``multiply_adds`` those of its products with
    weights for each position it is given, without the output layer's. 0 where it is not known.
    """

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weight_bytes: int = 0
    multiply_adds: int = 0

    def __post_init__(self) -> None:
        if self.weight_bytes < 0 or self.multiply_adds < 0:
            raise ValueError(
                f"{self.file} reads {self.weight_bytes} bytes, {self.multiply_adds} products; expected 0 or more"
            )

    def tensor(self, name: str) -> Tensor:
        """The input or output called ``name``. Raises BundleError when the graph has none."""
        for tensor in (*self.inputs, *self.outputs):
            if tensor.name == name:
                return tensor
        raise BundleError(f"{self.file}: the graph has no tensor '{name}'; {AGAIN}")


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 (64 lower-case hexadecimal digits) of one file."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size is {self.size}; expected zero or more bytes")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 is {self.sha256!r}; expected 64 lower-case hexadecimal digits")


@dataclasses.dataclass(frozen=True)
class ModelDims:
    """What the runtime must know of the model.

    ``hidden_size`` is C, the width of the LLM; ``image_tokens`` are the positions one picture takes in the prompt;
    ``max_len`` is the longest sequence, prompt and answer together; ``experts`` is 0 for a model without the mixture.
    """

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_len: int
    image_tokens: int
    experts: int
    expert_kind: Literal["mlp", "swiglu"]
    residual: Literal["paper", "released"]
    alpha: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "experts" else 1
            if field.type is int and not least <= value <= 2**31 - 1:
                raise ValueError(f"{field.name} is {value}; expected {least} or more")
        if not math.isfinite(self.alpha):
            raise ValueError(f"alpha is {self.alpha}; expected a finite number")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if self.image_tokens >= self.max_len:
            raise ValueError(f"max_len is {self.max_len}; one picture alone takes {self.image_tokens} positions")


@dataclasses.dataclass(frozen=True)
class PromptRecipe:
    """What stands around the question: the system text, that pictures come first, and the template it goes into."""

    system: str
    image_first: Literal[True] = True
    template: Literal["chatml", "vicuna"] = "chatml"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A bundle's ``parrot.json``. ``files`` lists every file but the manifest itself and the engine caches.

    ``graphs`` are onnxruntime's, with or without one for ``prefill``; ``tensorrt`` holds the other roles as TensorRT
    takes them, written in ``tensorrt_dialect``. One of the two may be empty: a bundle for the ``cpu`` has ``graphs``
    and perhaps ``tensorrt``, one for a TensorRT has ``tensorrt`` alone. ``kv_dtype`` is the type of the KV cache of
    ``graphs``, or of ``tensorrt`` in a bundle without them; what TensorRT's has beside another is
    ``tensorrt_kv_dtype``. ``units`` say how the weights of single parts are stored (``decoder.layers.0.attn``:
    ``int8``) where ``precision`` does not.
    """

    schema_version: int
    name: str
    model: ModelDims
    languages: tuple[str, ...]
    image: ImageRecipe
    prompt: PromptRecipe
    target: Target
    precision: Precision
    kv_dtype: Literal["float32", "float16", "bfloat16"]
    graphs: dict[str, Graph]
    files: dict[str, FileRecord]
    verification: dict[str, Any]
    tools: dict[str, str]
    tensorrt: dict[str, Graph] = dataclasses.field(default_factory=dict)
    tensorrt_dialect: TensorRTDialect | None = None
    units: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def rounds_rows_together(self) -> bool:
        """Whether products of onnxruntime's decoder round all rows of a call by one scale, which int8's kernel does:
        what a position gives then depends on those beside it."""
        layers = any(name.startswith("decoder.layers.") and kind == "int8" for name, kind in self.units.items())
        return self.precision == "int8" or (self.precision == "mixed" and layers)

    @property
    def tensorrt_kv_dtype(self) -> str | None:
        """The type of the KV cache of TensorRT's graphs; None in a bundle without them. Raises BundleError."""
        return self.tensorrt["decoder"].tensor("past_key_values.0.key").dtype if self.tensorrt else None

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise ValueError(f"name is {self.name!r}; expected a short printable name")
        expected = {"encoder", "decoder"} | ({"experts"} if self.model.experts else set())
        needed, other = ("graphs", "tensorrt") if self.target == "cpu" else ("tensorrt", "graphs")
        for what in (needed, other):
            found = getattr(self, what)
            roles = set(found) - ({PREFILL} if what == "graphs" else set())
            if roles != expected and (found or what == needed):
                raise ValueError(f"{what} are {_listed(found)}; expected {_listed(expected)}")
        if needed == "tensorrt" and self.graphs:
            raise ValueError(f"the target is {self.target}, but there are graphs for onnxruntime")
        if self.graphs and self.precision not in _ORT_PRECISIONS:
            raise ValueError(f"the precision is {self.precision}, which graphs for onnxruntime cannot have")
        if self.precision == "mixed" and not self.units:
            raise ValueError("the precision is mixed, and no units say how")
        if (self.tensorrt_dialect is None) != (not self.tensorrt):
            raise ValueError("tensorrt and tensorrt_dialect go together, and one of them is missing")
        for path in self.files:
            _check_relative(path)
        named = {f"graphs.{role}": graph.file for role, graph in self.graphs.items()}
        named |= {f"tensorrt.{role}": graph.file for role, graph in self.tensorrt.items()}
        for what, path in {**named, "the tokenizer": TOKENIZER_NAME, "the embedding": EMBEDDING_NAME}.items():
            if path not in self.files:
                raise ValueError(f"{what} is '{path}', which the list of files does not hold")


def load_manifest(folder: Path) -> Manifest:
    """Read and check ``folder/parrot.json``; the files it lists are ``integrity.verify_files``' business.

    Raises BundleError: no such folder or file, not JSON, repeated keys, NaN or infinities, unknown or missing keys,
    another schema, a path that leaves the folder, values that are not those of its own ``sha256`` (which another
    writer may leave out).
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        if not Path(folder).is_dir():
            raise BundleError(f"{folder}: there is no such bundle folder; run `parrot-export` to make one")
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{folder}: not a bundle, it holds no {MANIFEST_NAME}; run `parrot-export` to make one")
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: over {_MAX_MANIFEST_BYTES} bytes, which no manifest needs; {AGAIN}")
        data = parse_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not a manifest ({_one_line(error)}); {AGAIN}") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); check who may read it") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path}: not a manifest (expected one JSON object); {AGAIN}")
    version = data.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema_version is {version!r}, this Parrot reads {SCHEMA_VERSION}; "
            "export the bundle again with this version, or install the Parrot that made it"
        )
    values = {key: value for key, value in data.items() if key != _SEAL}
    try:
        manifest = from_mapping(Manifest, values, where=str(path))
    except InputError as error:
        raise BundleError(f"{_one_line(error)}; {AGAIN}") from error
    if _SEAL in data and data[_SEAL] != _digest(values):
        raise BundleError(f"{path}: the manifest was altered, its {_SEAL} is not that of its values; {AGAIN}")
    return manifest


def require_graphs(folder: Path, manifest: Manifest) -> None:
    """Raise BundleError for a bundle that holds nothing onnxruntime could run."""
    if not manifest.graphs:
        raise BundleError(
            f"{folder}: a bundle for {manifest.target}, and nothing in it runs without a GPU; run `parrot-export "
            "engines` on it where the GPU is, or export one for onnxruntime with `parrot-export --target cpu`"
        )


def to_json(manifest: Manifest) -> str:
    """The manifest as JSON text, readable and stable; ``load_manifest`` gives the same object back."""
    values = dataclasses.asdict(manifest)
    return json.dumps(values | {_SEAL: _digest(values)}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _digest(values: dict[str, Any]) -> str:
    """SHA-256 of the values as JSON of one line, keys in order: how the file spells and orders them is left out."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _check_relative(name: str) -> None:
    """Refuse every spelling of a path that is not a plain way down from the bundle's folder."""
    parts = name.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or "\0" in name
        or PureWindowsPath(name).drive
        or name == MANIFEST_NAME
    ):
        raise ValueError(f"the path {name!r} in the list of files is refused: expected a plain path inside the bundle")


def _one_line(error: Exception) -> str:
    """The error's text with whatever a manifest smuggled in made visible: line breaks, escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(error)[:500])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
