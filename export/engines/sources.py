"""What an engine is made of, read off a graph without its weights: the files it needs, their bytes, and its types."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx

from parrot_runtime.engines import Source
from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.manifest import Graph, Manifest

# The first compute capability whose products take a type (CUDA C++ Programming Guide, compute capabilities).
_FIRST_SM = {
    onnx.TensorProto.BFLOAT16: ("bf16", 80),
    onnx.TensorProto.FLOAT8E4M3FN: ("fp8", 89),
    onnx.TensorProto.FLOAT8E5M2: ("fp8", 89),
    onnx.TensorProto.FLOAT4E2M1: ("fp4", 100),
}
_AGAIN = "export the bundle again"


@dataclass(frozen=True)
class GraphFacts:
    """A graph's ``source``, the bytes of its weights, and the first SM that has all its types, with the type's name."""

    source: Source
    weight_bytes: int
    first_sm: int
    newest_type: str | None

    def require(self, sm: int) -> None:
        """Raises InputError when the GPU ``sm`` lacks a type of the graph."""
        if sm < self.first_sm:
            raise InputError(
                f"{self.source.file} computes in {self.newest_type}, which SM {sm} does not have: "
                f"name SM {self.first_sm} or newer with --sm, or export in another precision"
            )


def read_graph(folder: Path, graph: Graph, manifest: Manifest) -> GraphFacts:
    """Read the ONNX file of ``graph`` in the bundle ``folder``; hashes are the manifest's.

    Raises BundleError for a file that is no graph, and for weights in files the manifest does not list.
    """
    path = folder / graph.file
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's and the file system's errors share no base class
        raise BundleError(f"{path}: not a graph that can be read ({' '.join(str(error).split())}); {_AGAIN}") from error
    files, size = {}, 0
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            name = (PurePosixPath(graph.file).parent / location).as_posix()
            if name not in manifest.files:
                raise BundleError(f"{path}: {tensor.name} lies in '{name}', which the manifest does not list; {_AGAIN}")
            files[name] = manifest.files[name].sha256
        size += _bytes(tensor)
    first, name = max((_FIRST_SM[kind][::-1] for kind in _types(model) if kind in _FIRST_SM), default=(0, None))
    source = Source(graph.file, manifest.files[graph.file].sha256, dict(sorted(files.items())))
    return GraphFacts(source, size, first, name)


def _bytes(tensor: onnx.TensorProto) -> int:
    bits = 4 if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1) else 0
    bits = bits or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return math.prod(tensor.dims) * bits // 8


def _types(model: onnx.ModelProto) -> set[int]:
    """The element types a graph stores, takes, gives or converts to."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    kinds = {value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.data_type for tensor in _tensors(model)}
    return kinds | {
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name in ("to", "output_dtype")
    }


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from _constants(node.attribute)


def _constants(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.type == onnx.AttributeProto.TENSOR:
            yield attribute.t
