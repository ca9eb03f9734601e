"""What a calibration hands to an export: one JSON and one safetensors file, pure data. See ``docs/quantization.md``.

Per input of products: histograms by language and the thresholds drawn from them. Per site: factors that make its
rounding easier (``parrot_export.folding``). Per matrix: the codes of four bits that were found for it. All of it is of
one checkpoint, whose numbers' hash is here, and of no other.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from parrot_export.checkpoint import Checkpoint
from parrot_export.folding import fold_sites
from parrot_export.quantise import two_to_a_byte
from parrot_export.weights import Block
from parrot_runtime.errors import InputError
from parrot_runtime.integrity import record_file
from parrot_runtime.languages import BY_CODE
from parrot_runtime.strict import from_mapping, nearest, parse_json

SCALES_JSON, SCALES_NUMBERS = "scales.json", "scales.safetensors"
SCHEMA_VERSION = 1
AGAIN = "calibrate again with parrot-calibrate"

RangeMethod = Literal["minmax", "percentile", "entropy", "mse"]
RANGE_METHODS: tuple[str, ...] = get_args(RangeMethod)
# To what factors were fitted: inputs and weights of 8 bits, or weights of 4.
Fit = Literal["int8", "int4"]
# The factors that a precision takes; fp8 rounds inputs by fixed scales as int8 does.
FIT_OF: Mapping[str, Fit] = {"int8": "int8", "fp8": "int8", "int4": "int4"}


@dataclass(frozen=True)
class Search:
    """Of a site, what its factors came from and the error they leave, by language, of each and of none.

    An error is ‖x·Wᵀ - rounded‖² / ‖x·Wᵀ‖² over the rows kept of a language. ``alpha`` 0 with no factors: none helped.
    """

    alpha: float
    plain: dict[str, float]
    chosen: dict[str, float]


@dataclass(frozen=True)
class Product:
    """One input of products, by its first module's name in ``Record.products``; ``modules`` are all that read it.

    inputs: K. rows: how many rows were seen, by language. largest: the largest absolute value, factors divided out,
    which is where the histograms end. thresholds: by method. clipped: the share of each language's values beyond the
    threshold of ``Settings.ranges``. searches: by fit, of a site.
    """

    role: str
    modules: tuple[str, ...]
    inputs: int
    rows: dict[str, int]
    largest: float
    thresholds: dict[str, float]
    clipped: dict[str, float]
    searches: dict[str, Search] = field(default_factory=dict)


@dataclass(frozen=True)
class Rounded:
    """A matrix ``[N, K]`` in 4 bits: ``block`` numbers along K share a scale; errors by language as in ``Search``.

    ``method`` is what chose the codes (``rtn`` or ``gptq``), ``plain`` the error of rounding to nearest, no factors.
    """

    shape: tuple[int, ...]
    block: int
    method: str
    plain: dict[str, float]
    chosen: dict[str, float]

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or self.block < 1:
            raise ValueError(f"shape is {list(self.shape)}, block is {self.block}; expected two axes, and 1 or more")


@dataclass(frozen=True)
class Settings:
    """How a calibration was made; what changes a number is here, and nothing else."""

    ranges: RangeMethod = "mse"
    int4: Literal["rtn", "awq", "gptq", "awq+gptq"] = "awq+gptq"
    block: int = 128
    asymmetric: bool = False
    seed: int = 0
    per_language: int = 32


@dataclass(frozen=True)
class Record:
    """``scales.json``."""

    schema_version: int
    checkpoint: str
    languages: tuple[str, ...]
    settings: Settings
    samples: tuple[dict[str, Any], ...]
    products: dict[str, Product]
    matrices: dict[str, Rounded]
    numbers: str

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {self.schema_version}; expected {SCHEMA_VERSION}")
        if not self.languages or set(self.languages) - BY_CODE.keys():
            raise ValueError(f"languages are {list(self.languages)}; expected some of {', '.join(BY_CODE)}")
        for sample in self.samples:
            if not isinstance(sample.get("source"), str) or "row" not in sample:
                raise ValueError(f"a sample is {sample}; expected its source and row")


@dataclass(frozen=True)
class Scales:
    """A folder of scales that was checked: its numbers are whole, and are what its JSON says."""

    folder: Path
    record: Record

    @cached_property
    def _file(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self.folder / SCALES_NUMBERS, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{self.folder / SCALES_NUMBERS}: not a sound safetensors file ({error}); {AGAIN}"
            ) from error

    @property
    def ranges(self) -> dict[str, float]:
        """The chosen threshold by every module, as ``author`` takes it."""
        products, method = self.record.products.values(), self.record.settings.ranges
        return {module: product.thresholds[method] for product in products for module in product.modules}

    def histogram(self, product: str) -> np.ndarray:
        """int64 ``[languages, bins]`` of absolute values, from 0 to ``largest``."""
        return self._tensor(f"{product}.histogram")

    def factors(self, fit: Fit) -> dict[str, np.ndarray]:
        """The factors of all sites that have some, by product: float32 ``[channels]``."""
        names = set(self._file.keys())
        return {name: self._tensor(key) for name in self.record.products if (key := f"{name}.{fit}.factors") in names}

    def int4_block(self, name: str) -> int | None:
        """How many numbers of the matrix ``name`` share a scale, None where it has no codes here."""
        matrix = self.record.matrices.get(name)
        return matrix.block if matrix else None

    def signed(self, name: str, dtype: str) -> tuple[Block, Block]:
        """Codes -7 to 7 of the matrix ``name``, two to a byte, and its scales in ``dtype``: symmetric ones alone."""
        codes, scales, _ = self.blocks(name)
        turned = partial(_turned, codes)
        return replace(codes, name=f"{name}.int4", chunks=turned), replace(
            scales, name=f"{name}.int4.scales", dtype=dtype
        )

    def unsigned(self, name: str) -> tuple[Block, Block, Block | None]:
        """``blocks`` as MatMulNBits takes them: scales in float32, zero points two to a byte, rows apart."""
        codes, scales, zeros = self.blocks(name)
        scales = replace(scales, dtype="float32")
        if zeros is None:
            return codes, scales, None
        rows, groups = zeros.shape
        return codes, scales, replace(zeros, shape=(rows, (groups + 1) // 2), chunks=partial(_packed, zeros))

    def blocks(self, name: str) -> tuple[Block, Block, Block | None] | None:
        """Codes, scales and zero points of the matrix ``name`` (experts' side by side with ``.columns``), or None.

        Codes are uint8 ``[N, K / 2]``, two to a byte, from 0 to 15; scales float16 ``[N, K / block]``; zero points
        uint8 ``[N, K / block]``, None where all of them are 8.
        """
        if name not in self.record.matrices:
            return None
        parts = [f"{name}.uint4", f"{name}.uint4.scales", f"{name}.uint4.zeros"]
        known = self._file.keys()
        return tuple(self._block(part) if part in known else None for part in parts)

    def _block(self, name: str) -> Block:
        view = self._file.get_slice(name)
        shape = tuple(view.get_shape())
        dtype = {"U8": "uint8", "F16": "float16"}[view.get_dtype()]
        return Block(name, dtype, shape, lambda: self._rows(name, shape))

    def _rows(self, name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        view, step = self._file.get_slice(name), max(1, (8 << 20) // max(1, shape[1]))
        for first in range(0, shape[0], step):
            yield view[first : min(first + step, shape[0])].reshape(-1)

    def _tensor(self, name: str) -> np.ndarray:
        return self._file.get_tensor(name)


def _turned(codes: Block) -> Iterator[np.ndarray]:
    """Codes of 0 to 15 as -8 to 7: eight less in either half of a byte is its highest bit turned over."""
    return (chunk ^ np.uint8(0x88) for chunk in codes.chunks())


def _packed(zeros: Block) -> Iterator[np.ndarray]:
    """uint8 ``[rows, groups]``, two to a byte, the first in the lower half; a last one alone has eight beside it."""
    groups = zeros.shape[1]
    for chunk in zeros.chunks():
        even = np.pad(chunk.reshape(-1, groups), ((0, 0), (0, groups % 2)), constant_values=8)
        yield two_to_a_byte(even).reshape(-1)


def read_scales(folder: Path, checkpoint: Checkpoint) -> Scales:
    """The scales in ``folder``, which must be those of ``checkpoint``.

    Raises InputError: no scales there, malformed or altered ones, those of another checkpoint, a name that this model
    does not have.
    """
    path = folder / SCALES_JSON
    try:
        data = parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected what parrot-calibrate wrote") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not sound JSON ({error}); {AGAIN}") from error
    record = from_mapping(Record, data, where=str(path))
    _check_names(path, record, checkpoint)
    numbers = folder / SCALES_NUMBERS
    if not numbers.is_file() or record_file(numbers).sha256 != record.numbers:
        raise InputError(f"{numbers}: missing, or not the file that {SCALES_JSON} was written with; {AGAIN}")
    if fingerprint(checkpoint) != record.checkpoint:
        raise InputError(
            f"{folder}: these are scales of another checkpoint than {checkpoint.folder}, or it was trained since; "
            f"{AGAIN}"
        )
    scales = Scales(folder, record)
    _check_tensors(numbers, scales, checkpoint)
    return scales


def _check_names(path: Path, record: Record, checkpoint: Checkpoint) -> None:
    """Every product and matrix is one of the model's."""
    known = {name.removesuffix(".weight") for name in checkpoint.tensors if name.endswith(".weight")}
    for product in record.products.values():
        for module in product.modules:
            if module not in known:
                raise InputError(f"{path}: this model has no layer '{module}'{nearest(module, known)}; {AGAIN}")
        lacking = [method for method in RANGE_METHODS if not product.thresholds.get(method, 0) > 0]
        if lacking:
            raise InputError(f"{path}: {product.modules[0]} has no {lacking[0]} threshold above 0; {AGAIN}")
    for name in record.matrices:
        if name.removesuffix(".columns") not in checkpoint.tensors:
            raise InputError(f"{path}: this model has no matrix '{name}'{nearest(name, checkpoint.tensors)}; {AGAIN}")


def _check_tensors(path: Path, scales: Scales, checkpoint: Checkpoint) -> None:
    """Codes have the shapes their matrices ask for, factors belong to sites and are as many as these have channels."""
    sites = fold_sites(checkpoint.architecture)
    for fit in get_args(Fit):
        for product, factors in scales.factors(fit).items():
            if product not in sites or factors.shape != (sites[product].channels,):
                raise InputError(f"{path}: the factors of {product} do not fit this model; {AGAIN}")
    for name, matrix in scales.record.matrices.items():
        rows, columns = matrix.shape
        groups = columns // matrix.block
        shapes = [(rows, columns // 2), (rows, groups), (rows, groups)]
        blocks = scales.blocks(name)
        if blocks[0] is None or blocks[1] is None:
            raise InputError(f"{path}: the codes of {name} are missing; {AGAIN}")
        for block, shape in zip(blocks, shapes, strict=True):
            if block is not None and block.shape != shape:
                raise InputError(f"{path}: {block.name} is {list(block.shape)}; expected {list(shape)}; {AGAIN}")


def to_json(record: Record) -> str:
    """``record`` as it stands in ``scales.json``."""
    return json.dumps(asdict(record), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def fingerprint(checkpoint: Checkpoint) -> str:
    """sha256 over the model's shape and every number an export reads, in the order of the tensors' names."""
    digest = hashlib.sha256(repr(checkpoint.architecture).encode())
    for name in sorted(checkpoint.tensors):
        tensor = checkpoint.tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        for chunk in tensor.chunks():
            digest.update(chunk.view(np.uint8).data)
    return digest.hexdigest()
