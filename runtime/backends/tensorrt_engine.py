"""One TensorRT engine, ready to run: its contexts, and buffers on both sides of the bus for what goes in and out."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parrot_runtime.cuda import Cuda, Memory
from parrot_runtime.engines import EngineRecord
from parrot_runtime.errors import BundleError, ParrotError
from parrot_runtime.flavours import Flavour
from parrot_runtime.machine import keep_compiled, load_compiled
from parrot_runtime.manifest import Graph
from parrot_runtime.tensorrt_log import Calls, logger

_REBUILD = "run `parrot-export engines` on this bundle"


@dataclass
class Device:
    """What the engines of a bundle share: a TensorRT, a stream, and scratch memory, as they run one at a time."""

    flavour: Flavour
    cuda: Cuda
    scratch: Memory | None = None
    engines: list[Engine] = field(default_factory=list)

    def share_scratch(self) -> None:
        """Give every context the same memory to scratch in, as much as the greediest needs."""
        self.scratch = self.cuda.allocate(max(engine.scratch_bytes for engine in self.engines))
        for engine in self.engines:
            for context in engine.contexts.values():
                context.set_device_memory(self.scratch.address, self.scratch.size)


@dataclass
class Port:
    """One input or output of a call: pinned memory of the host and memory of the device of the same bytes."""

    host: np.ndarray
    device: Memory


class Engine:
    """The engine of one role, loaded from ``path``, with a context for each of its profiles.

    ``repeating`` names the profiles whose calls are all alike. Raises BundleError for an engine that is not what
    ``record`` and ``graph`` say, ParrotError for one that TensorRT does not load.
    """

    def __init__(
        self, path: Path, record: EngineRecord, graph: Graph, device: Device, repeating: tuple[str, ...] = ()
    ) -> None:
        self.path, self.profiles = path, {profile.name: profile for profile in record.profiles}
        self.dtypes = {tensor.name: tensor.dtype for tensor in (*graph.inputs, *graph.outputs)}
        self._device, self._sha256, self._calls = device, record.sha256, Calls()
        self._ports: dict[str, Port] = {}
        trt = device.flavour.trt
        with logger(trt, self._calls) as log, open(path, "rb") as file:
            runtime = trt.Runtime(log)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._engine = runtime.deserialize_cuda_engine(data)
            if self._engine is None:
                raise ParrotError(f"{path}: {device.flavour} does not load this engine ({self._said()}); {_REBUILD}")
            _check_border(path, graph, self._engine, trt)
            self._runtime = runtime  # an engine must not outlive what loaded it
            self._compiler = device.flavour.create_compiler(self._engine, load_compiled(self._sha256))
            self.contexts = {
                name: self._context(number, name in repeating) for number, name in enumerate(self.profiles)
            }
        device.engines.append(self)

    @property
    def scratch_bytes(self) -> int:
        """The most memory any of the contexts scratches in."""
        count = range(len(self.profiles))
        return max(self._engine.get_device_memory_size_for_profile_v2(number) for number in count)

    def largest(self, profile: str, name: str) -> tuple[int, ...]:
        """The largest shape of the input ``name`` in ``profile``."""
        return self.profiles[profile].shapes[name].max

    def port(self, name: str, shape: tuple[int, ...]) -> Port:
        """Memory for the tensor ``name`` of ``shape``; the same again as long as it is large enough."""
        kind = np.dtype(self.dtypes[name])
        size = int(np.prod(shape)) * kind.itemsize
        kept = self._ports.get(name)
        if kept is None or kept.device.size < size:
            # A power of two: prompts that grow by a word each do not take new memory each.
            room = 1 << max(size - 1, 1).bit_length()
            kept = Port(self._device.cuda.pinned((room,), "uint8"), self._device.cuda.allocate(room))
            self._ports[name] = kept
        return Port(kept.host[:size].view(kind).reshape(shape), kept.device)

    def call(
        self,
        profile: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, tuple[int, ...]],
        *,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        addresses: Mapping[str, int] | None = None,
    ) -> list[np.ndarray]:
        """Run on arrays of the host; copies of the ``outputs`` of these shapes, in their order.

        ``shapes`` and ``addresses`` are of tensors that stay on the device.
        """
        cuda, shapes, addresses = self._device.cuda, dict(shapes or {}), dict(addresses or {})
        for name, array in inputs.items():
            port = self.port(name, array.shape)
            port.host[...] = array
            cuda.upload(port.host, port.device.address)
            shapes[name], addresses[name] = array.shape, port.device.address
        ports = {name: self.port(name, shape) for name, shape in outputs.items()}
        addresses |= {name: port.device.address for name, port in ports.items()}
        self.enqueue(profile, shapes, addresses)
        for port in ports.values():
            cuda.download(port.device.address, port.host)
        cuda.synchronize()
        return [port.host.copy() for port in ports.values()]

    def enqueue(self, profile: str, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """Enqueue one run: the shape of every input, the address of every input and output. Raises ParrotError."""
        context, self._calls = self.contexts[profile], Calls()
        with logger(self._device.flavour.trt, self._calls):
            for name, shape in shapes.items():
                if not context.set_input_shape(name, tuple(shape)):
                    raise ParrotError(
                        f"{self.path}: '{name}' of {tuple(shape)} is not what the profile '{profile}' was built for, "
                        f"up to {self.largest(profile, name)} ({self._said()}); {_REBUILD}"
                    )
            for name, address in addresses.items():
                context.set_tensor_address(name, address)
            if not context.execute_async_v3(self._device.cuda.stream):
                raise ParrotError(f"{self.path}: the engine did not run ({self._said()}); run with -v for all of it")

    def keep_compiled(self) -> None:
        """Remember for the next start what was compiled in this one; not being able to only makes that one slower."""
        if self._compiler is None:
            return
        data = bytes(self._compiler.serialize())
        if data != load_compiled(self._sha256):
            with suppress(OSError):
                keep_compiled(self._sha256, data)

    def _context(self, number: int, repeats: bool) -> Any:
        flavour, cuda = self._device.flavour, self._device.cuda
        context = flavour.create_context(self._engine, self._compiler, repeats=repeats)
        if context is None:
            raise ParrotError(f"{self.path}: {flavour} does not start this engine ({self._said()}); {_REBUILD}")
        if not context.set_optimization_profile_async(number, cuda.stream):
            raise ParrotError(f"{self.path}: the engine has no profile {number} ({self._said()}); {_REBUILD}")
        return context

    def _said(self) -> str:
        return " ".join(self._calls.errors[-1].split())[:300] if self._calls.errors else "no reason given"


def _check_border(path: Path, graph: Graph, engine: Any, trt: Any) -> None:
    """The engine's inputs and outputs must be the graph's, by name, type and number of axes."""
    types = {
        "float32": trt.float32,
        "float16": trt.float16,
        "bfloat16": trt.bfloat16,
        "int32": trt.int32,
        "int64": trt.int64,
        "bool": trt.bool,
    }
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    for mode, declared in ((trt.TensorIOMode.INPUT, graph.inputs), (trt.TensorIOMode.OUTPUT, graph.outputs)):
        told = {tensor.name: (types[tensor.dtype], len(tensor.axes)) for tensor in declared}
        found = {
            name: (engine.get_tensor_dtype(name), len(engine.get_tensor_shape(name)))
            for name in names
            if engine.get_tensor_mode(name) == mode
        }
        if told != found:
            name = next(iter(sorted(told.keys() ^ found.keys()) or sorted(n for n in told if told[n] != found[n])))
            raise BundleError(
                f"{path}: '{name}' is {found.get(name)} in the engine and {told.get(name)} in the manifest; {_REBUILD}"
            )
