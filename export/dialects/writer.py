"""Writing one ONNX graph: names by path, nodes, borders, constants, and weights that stay where they are.

Values are named by their path (``/llm/layers.0/attn/qkv/Gemm/output_0``), stored tensors by their names in the
checkpoint. A tensor is asked for by name; what enters the graph is a reference into a weight file, cast to the plan's
computing type where it is stored in another. Runtimes fold such casts when they load the graph, so no later step pays.

A dialect may compute in two types: ``compute``, which activations and a graph's borders have, and ``product``, which
the operands of its matrix products have. They are one here.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from parrot_export.architecture import EMBEDDING, HEAD
from parrot_export.checkpoint import Checkpoint
from parrot_export.plan import ComponentPlan, Plan
from parrot_export.quantise import int4_block
from parrot_export.scales import Scales
from parrot_export.weights import Region, Shelf, computed, copied, flat, side_by_side
from parrot_runtime.manifest import Graph, Tensor

TYPES: dict[str, ir.DataType] = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "int32": ir.DataType.INT32,
    "int64": ir.DataType.INT64,
    "bool": ir.DataType.BOOL,
}
# What an initialiser may be beside that.
STORED = TYPES | {
    "int8": ir.DataType.INT8,
    "uint8": ir.DataType.UINT8,
    "int4": ir.DataType.INT4,
    "float8_e4m3fn": ir.DataType.FLOAT8E4M3FN,
}
_NAMES = {dtype: name for name, dtype in TYPES.items()}


class GraphWriter:
    """One graph under construction.

    Args:
        root: the first part of every name, ``/llm``.
        plan: the export's types; the graph has those of its ``component``.
        component: which of the plan's components the graph is.
        checkpoint: where tensors come from.
        weights: the files that take this graph's tensors, or hold them already.
        elsewhere: tensors that another file of the bundle holds already, by name (tied word embeddings).
        ranges: the largest absolute value that enters each product, by module, where activations are quantised.
        scales: codes of 4 bits that a calibration found, for matrices that are stored so.

    ``products`` are the inputs of the graph's matrix products, by the name of the (first) module they enter.
    """

    opsets: ClassVar[dict[str, int]]
    ir_version: ClassVar[int] = 10

    def __init__(
        self,
        root: str,
        plan: Plan,
        component: str,
        checkpoint: Checkpoint,
        weights: Shelf,
        elsewhere: Mapping[str, Region] | None = None,
        ranges: Mapping[str, float] | None = None,
        scales: Scales | None = None,
    ) -> None:
        self.ranges, self.scales = ranges or {}, scales
        self._components, self._role = plan.components, component
        self.plan: ComponentPlan = plan.components[component]
        self.products: dict[str, ir.Value] = {}
        self._multiply_adds: dict[str, int] = {}
        self._checkpoint, self._weights, self._elsewhere = checkpoint, weights, elsewhere or {}
        self._path = [root]
        self._used: Counter[str] = Counter()
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._options: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._constants: dict[str, ir.Value] = {}
        self._stored: dict[str, tuple[ir.Value, Region]] = {}
        self._weight_values: dict[tuple[str, ir.DataType], ir.Value] = {}

    @property
    def compute(self) -> ir.DataType:
        """The type activations have, at the graph's borders too."""
        return TYPES[self.plan.compute]

    @property
    def product(self) -> ir.DataType:
        """The type the operands of products have."""
        return self.compute

    @contextmanager
    def component(self, name: str) -> Iterator[None]:
        """Everything written inside has the types of the plan's component ``name``."""
        outer, self.plan = self.plan, self._components[name]
        try:
            yield
        finally:
            self.plan = outer

    @contextmanager
    def unit(self, name: str) -> Iterator[None]:
        """Everything written inside is the part ``name`` of the graph's component, with its types if it has any."""
        outer, self.plan = self.plan, self._components.get(f"{self._role}.{name}", self.plan)
        try:
            yield
        finally:
            self.plan = outer

    def enter(self, rows: ir.Value, *modules: str) -> None:
        """Say that ``rows`` enter one product with the weights of ``modules``."""
        self.products[modules[0]] = rows
        if modules[0] not in (EMBEDDING, HEAD):
            shapes = [self._checkpoint.tensors[f"{module}.weight"].shape for module in modules]
            self._multiply_adds[modules[0]] = sum(map(math.prod, shapes))

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Everything written inside stands below ``name``."""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    def op(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        dtype: ir.DataType | None = None,
        domain: str = "",
    ) -> ir.Value:
        """One node with one output, which has the type of the first input unless ``dtype`` says otherwise."""
        return self.ops(kind, inputs, attributes, outputs=(0,), dtype=dtype, domain=domain)[0]

    def ops(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[int],
        dtype: ir.DataType | None = None,
        domain: str = "",
    ) -> list[ir.Value]:
        """One node of which the outputs numbered in ``outputs`` are used; those between them stay unnamed."""
        name = self._unique("/".join([*self._path, kind]))
        dtype = dtype or inputs[0].dtype
        values = [
            ir.Value(name=f"{name}/output_{number}" if number in outputs else "", type=ir.TensorType(dtype))
            for number in range(max(outputs) + 1)
        ]
        self._nodes.append(ir.node(kind, inputs, attributes or {}, domain=domain, outputs=values, name=name))
        return [values[number] for number in outputs]

    def _unique(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name] - 1}"

    # The graph's borders

    def input(self, name: str, axes: Sequence[str | int], dtype: str | None = None) -> ir.Value:
        """A graph input; ``dtype`` is the computing type unless given."""
        kind = TYPES[dtype] if dtype else self.compute
        value = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(axes))
        self._inputs.append(value)
        return value

    def option(self, name: str, default: int) -> ir.Value:
        """An int64 scalar that who runs the graph may give: an input whose initialiser is its default."""
        tensor = ir.tensor(np.array(default, np.int64), name=name)
        value = ir.Value(name=name, shape=ir.Shape(()), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._options.append(value)
        return value

    def output(self, name: str, value: ir.Value, axes: Sequence[str | int], dtype: str | None = None) -> None:
        """Make ``value`` the graph output ``name``; ``dtype`` as in ``input``."""
        value = self.cast(value, TYPES[dtype] if dtype else self.compute)
        value.name, value.shape = name, ir.Shape(axes)
        self._outputs.append(value)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` in another type; itself where it has that type."""
        return value if value.dtype == dtype else self.op("Cast", [value], {"to": int(dtype)}, dtype=dtype)

    def finish(self) -> ir.Model:
        """The model, every stored tensor pointing into its weight file, which must be sealed."""
        for name, (value, region) in self._stored.items():
            value.const_value = ir.ExternalTensor(
                region.file.location,
                region.offset,
                region.size,
                STORED[region.dtype],
                shape=ir.Shape(region.shape),
                name=name,
            )
        graph = ir.Graph(
            [*self._inputs, *self._options],
            self._outputs,
            nodes=self._nodes,
            initializers=[*(value for value, _ in self._stored.values()), *self._constants.values(), *self._options],
            opset_imports=dict(self.opsets),
            name=self._path[0].strip("/").replace("/", "."),
        )
        return ir.Model(graph, ir_version=self.ir_version, producer_name="parrot-export")

    def describe(self, file: str) -> Graph:
        """The graph's entry in the manifest, ``file`` being its path in the bundle."""
        borders = (tuple(map(_described, values)) for values in (self._inputs, self._outputs))
        # A weight that is stored in another type than it is used in is cast once, when the graph is loaded.
        used = dict(self._weight_values.keys())
        sizes = (
            math.prod(region.shape) * used[name].itemsize if name in used else region.size
            for name, (_, region) in self._stored.items()
        )
        return Graph(file, *borders, math.ceil(sum(sizes)), sum(self._multiply_adds.values()))

    # Constants and weights

    def constant(self, array: np.ndarray) -> ir.Value:
        """A small constant, kept inside the graph; equal ones are one."""
        shape = "x".join(map(str, array.shape)) or "scalar"
        name = "/".join(["/constants", str(array.dtype), shape, "_".join(map(str, array.reshape(-1)))])
        if name not in self._constants:
            tensor = ir.tensor(array, name=name)
            self._constants[name] = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        return self._constants[name]

    def integers(self, *numbers: int) -> ir.Value:
        """int64 ``[n]``."""
        return self.constant(np.array(numbers, np.int64))

    def number(self, value: float, like: ir.Value) -> ir.Value:
        """A scalar in the type of ``like``."""
        return self.constant(np.array(value, like.dtype.numpy()))

    def matrix(self, *names: str) -> ir.Value:
        """The weights ``names``, stacked on their rows: ``[out, in]``. Experts' ``[E, I, C]`` are ``[E·I, C]``."""
        blocks = [copied(self._checkpoint.tensors[name], self.plan.stored) for name in names]
        if len(names) > 1 and self._weights.linked(blocks):
            # They do not stand side by side where they are: whoever loads the graph joins them, once.
            return self.op("Concat", [self.matrix(name) for name in names], {"axis": 0})
        return self._weight(names, lambda: self._copies(names, self.plan.stored, self.matrix_shape(*names)))

    def matrix_shape(self, *names: str) -> tuple[int, int]:
        """The shape of ``matrix``."""
        shapes = [self._checkpoint.tensors[name].shape for name in names]
        return sum(math.prod(shape[:-1]) for shape in shapes), shapes[0][-1]

    def int4_block(self, name: str, columns: int) -> int | None:
        """How many numbers along K = ``columns`` of the matrix ``name`` share an int4 scale, None for no rounding."""
        calibrated = self.scales.int4_block(name) if self.scales else None
        return calibrated or int4_block(columns)

    def columns(self, name: str) -> ir.Value:
        """Experts' weights ``[E, C, I]`` side by side: ``[C, E·I]``."""
        tensor = self._checkpoint.tensors[name]
        return self._weight((f"{name}.columns",), lambda: self._weights.place([side_by_side(tensor, self.plan.stored)]))

    def kernel(self, name: str) -> ir.Value:
        """A convolution's weight, in its own shape."""
        shape = self._checkpoint.tensors[name].shape
        return self._weight((name,), lambda: self._copies((name,), self.plan.stored, shape))

    def vector(self, *names: str) -> ir.Value:
        """Norm weights or biases, flat, one after the other: ``[n]``. They are float32 on disk (see the plan)."""
        blocks = [flat(self._checkpoint.tensors[name]) for name in names]
        length = sum(math.prod(block.shape) for block in blocks)
        return self._weight(names, lambda: self._weights.place(blocks, (length,)), self.compute)

    def table(self, name: str, array: np.ndarray) -> ir.Value:
        """A float32 table calculated at export, kept in the weight file under ``name``."""
        block = computed(name, array.astype(np.float32))
        return self._weight((name,), lambda: self._weights.place([block]), self.compute)

    def load(self, name: str) -> np.ndarray:
        """A small tensor of the checkpoint in float32, for tables that are calculated from it."""
        return self._checkpoint.tensors[name].load()

    def _copies(self, names: Sequence[str], dtype: str, shape: tuple[int, ...]) -> Region:
        if len(names) == 1 and names[0] in self._elsewhere:
            return self._elsewhere[names[0]]
        return self._weights.place([copied(self._checkpoint.tensors[name], dtype) for name in names], shape)

    def _weight(self, names: Sequence[str], place: Callable[[], Region], dtype: ir.DataType | None = None) -> ir.Value:
        """The tensors ``names`` as one value of ``dtype``, a product's unless given; asked for again, the same."""
        key, dtype = "+".join(names), dtype or self.product
        if (key, dtype) not in self._weight_values:
            self._weight_values[key, dtype] = self.cast(self._initialiser(key, place), dtype)
        return self._weight_values[key, dtype]

    def _initialiser(self, key: str, place: Callable[[], Region]) -> ir.Value:
        """What stands in the weight file under ``key``, in the type it has there."""
        if key not in self._stored:
            region = place()
            value = ir.Value(name=key, shape=ir.Shape(region.shape), type=ir.TensorType(STORED[region.dtype]))
            self._stored[key] = value, region
        return self._stored[key][0]


def _described(value: ir.Value) -> Tensor:
    axes = tuple(axis if isinstance(axis, int) else str(axis.value) for axis in value.shape)
    return Tensor(value.name, _NAMES[value.dtype], axes)
