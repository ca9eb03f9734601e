"""A GPU made of host memory: CUDA's runtime API and TensorRT's Python API, as far as the backend calls them.

It is stricter than a device. Work is kept until the stream is waited for, so memory that is written too early shows;
new memory is full of NaN; every copy must lie inside memory that was allocated and not freed; every call of an engine
must lie within its profile, with scratch memory and every address given. An engine is its ONNX graph on onnxruntime.
"""

import ctypes
import enum
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime

from parrot_runtime.engines import (
    BUILD_NAME,
    BUILD_SCHEMA,
    BuildOptions,
    BuildRecord,
    EngineRecord,
    Source,
    engine_name,
    to_build_json,
)
from parrot_runtime.flavours import Flavour
from parrot_runtime.integrity import record_file

SCRATCH = {"encoder": 4096, "experts": 512, "decoder": 1024}


class Runtime:
    """``cuda.bindings.runtime``: one device of ``total`` bytes, one stream."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, total: int = 1 << 30) -> None:
        self.total, self.memory, self.pinned = total, {}, {}
        self.waiting, self.captured, self.graphs, self.launches = [], None, 0, 0
        self.fails: dict[str, int] = {}

    # What every function returns begins with its status.
    def _status(self, name):
        return self.fails.get(name, 0)

    def cudaGetErrorString(self, status):
        return 0, {2: b"out of memory", 700: b"an illegal memory access was encountered"}[int(status)]

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == 1
        return self._status("cudaStreamCreateWithFlags"), 77

    def cudaStreamDestroy(self, stream):
        return (0,)

    def cudaMemGetInfo(self):
        return 0, self.total - sum(map(len, self.memory.values())), self.total

    def cudaMalloc(self, size):
        if sum(map(len, self.memory.values())) + size > self.total:
            return 2, None
        return 0, self._new(self.memory, size)

    def cudaMallocHost(self, size):
        return 0, self._new(self.pinned, size)

    def cudaFree(self, address):
        self._run()  # the real one waits for the device
        del self.memory[address]
        return (0,)

    def cudaFreeHost(self, address):
        self._run()
        del self.pinned[address]
        return (0,)

    def cudaMemsetAsync(self, address, value, size, stream):
        self._enqueue(lambda: ctypes.memset(self.inside(address, size), value, size))
        return (0,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        self._enqueue(lambda: ctypes.memmove(self.inside(target, size), self.inside(source, size), size))
        return (self._status("cudaMemcpyAsync"),)

    def cudaMemcpy2DAsync(self, target, target_pitch, source, source_pitch, width, lines, kind, stream):
        assert width <= min(target_pitch, source_pitch)

        def copy():
            for n in range(lines):
                to, of = target + n * target_pitch, source + n * source_pitch
                ctypes.memmove(self.inside(to, width), self.inside(of, width), width)

        self._enqueue(copy)
        return (0,)

    def cudaStreamSynchronize(self, stream):
        assert self.captured is None, "a stream that is captured cannot be waited for"
        self._run()
        return (self._status("cudaStreamSynchronize"),)

    def cudaStreamBeginCapture(self, stream, mode):
        self.captured = []
        return (0,)

    def cudaStreamEndCapture(self, stream):
        work, self.captured = self.captured, None
        return 0, work

    def cudaGraphInstantiate(self, graph, flags):
        self.graphs += 1
        return self._status("cudaGraphInstantiate"), list(graph)

    def cudaGraphLaunch(self, executable, stream):
        self.launches += 1
        for work in executable:
            self._enqueue(work)
        return (0,)

    def cudaGraphDestroy(self, graph):
        return (0,)

    def cudaGraphExecDestroy(self, executable):
        self.graphs -= 1
        return (0,)

    def inside(self, address, size):
        """``address``, if ``size`` bytes from there are inside one allocation."""
        for start, buffer in (*self.memory.items(), *self.pinned.items()):
            if start <= address and address + size <= start + len(buffer):
                return address
        raise AssertionError(f"{size} bytes at {address:#x} are nobody's, or freed")

    def array(self, address, dtype, shape):
        """The memory at ``address`` as an array."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        bytes_ = (ctypes.c_byte * size).from_address(self.inside(address, size)) if size else b""
        return np.frombuffer(bytes_, dtype).reshape(shape)

    def _new(self, where, size):
        buffer = (ctypes.c_ubyte * size)(*b"\xff" * size) if size < 64 else ctypes.create_string_buffer(b"\xff" * size)
        address = ctypes.addressof(buffer)
        where[address] = buffer
        return address

    def _enqueue(self, work):
        (self.waiting if self.captured is None else self.captured).append(work)

    def _run(self):
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


class _Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class ILogger:
    """A logger keeps what it is told; the backend's own class derives from it."""

    INTERNAL_ERROR, ERROR, WARNING = _Severity.INTERNAL_ERROR, _Severity.ERROR, _Severity.WARNING


class Context:
    """An execution context of ``engine``, on the stream of ``runtime``."""

    def __init__(self, engine, config):
        self.engine, self.config, self.shapes, self.addresses = engine, config, {}, {}
        self.profile, self.scratch, self.calls = None, (0, 0), 0

    def set_device_memory(self, address, size):
        self.scratch = (address, size)

    def set_optimization_profile_async(self, number, stream):
        assert stream == 77
        self.profile = self.engine.profiles[number]
        return True

    def set_input_shape(self, name, shape):
        low, high = self.profile["shapes"][name]["min"], self.profile["shapes"][name]["max"]
        fits = len(low) == len(shape) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
        if not fits:
            self.engine.log.log(_Severity.ERROR, f"{name}: {shape} is outside of {low} to {high}")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, address):
        assert address, f"{name} has no address"
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        session, runtime = self.engine.session, self.engine.runtime
        assert stream == 77
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = {node.name: node for node in session.get_outputs()}
        assert set(self.shapes) == set(inputs)
        assert set(self.addresses) == set(inputs) | set(outputs)
        runtime.inside(*self.scratch)
        assert self.scratch[1] >= SCRATCH[self.engine.role]
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        self.calls += 1

        def run():
            feed = {
                name: runtime.array(addresses[name], _numpy(node.type), shapes[name]).copy()
                for name, node in inputs.items()
            }
            for name, result in zip(outputs, session.run(list(outputs), feed), strict=True):
                runtime.array(addresses[name], result.dtype, result.shape)[...] = result

        runtime._enqueue(run)
        return True


class Engine:
    """An engine whose file names its graph; see ``write_engines``."""

    def __init__(self, data, log, runtime):
        told = json.loads(bytes(data))
        self.role, self.profiles, self.log, self.runtime = told["role"], told["profiles"], log, runtime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(told["onnx"], options, providers=["CPUExecutionProvider"])
        self.contexts = []
        sides = (("in", self.session.get_inputs()), ("out", self.session.get_outputs()))
        self.nodes = {node.name: (mode, node) for mode, nodes in sides for node in nodes}
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, number):
        return list(self.nodes)[number]

    def get_tensor_mode(self, name):
        return self.nodes[name][0]

    def get_tensor_dtype(self, name):
        return _numpy(self.nodes[name][1].type)

    def get_tensor_shape(self, name):
        return self.nodes[name][1].shape

    def get_device_memory_size_for_profile_v2(self, number):
        return SCRATCH[self.role] // (number + 1)

    def create_execution_context(self, strategy=None, *, runtime_config=None):
        assert (strategy or runtime_config.strategy) == "user managed"
        self.contexts.append(Context(self, runtime_config))
        return self.contexts[-1]

    def create_runtime_config(self):
        return RuntimeConfig()


class RuntimeConfig:
    """TensorRT-RTX's."""

    strategy = cuda_graph_strategy = compiler = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return Compiler()

    def set_runtime_cache(self, compiler):
        self.compiler = compiler


class Compiler:
    """TensorRT-RTX's runtime cache."""

    known = b""

    def deserialize(self, data):
        self.known = bytes(data)
        return True

    def serialize(self):
        return self.known or b"compiled"


def tensorrt(runtime, version="1.7.1"):
    """The module; ``engines`` are those it loaded, by role."""
    loaded = {}

    class Runtime_:
        def __init__(self, log):
            self.log = log

        def deserialize_cuda_engine(self, data):
            try:
                engine = Engine(data, self.log, runtime)
            except ValueError:
                self.log.log(_Severity.ERROR, "the engine's magic tag does not match")
                return None
            loaded[engine.role] = engine
            return engine

    types = {name: np.dtype(name) for name in ("float32", "float16", "int32", "int64")}
    return SimpleNamespace(
        __version__=version,
        ILogger=ILogger,
        Runtime=Runtime_,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
        engines=loaded,
        bfloat16="bfloat16",
        bool=np.dtype("bool"),
        **types,
    )


def write_engines(bundle, manifest, profiles, flavour: Flavour, folder: Path, sm: int = 89) -> BuildRecord:
    """Engines of ``bundle`` for the device of this module, under ``folder``; ``profiles`` by role."""
    records = {}
    folder.mkdir(parents=True)
    for role, graph in manifest.tensorrt.items():
        path = folder / engine_name(role)
        ranges = [{"shapes": {n: vars(s) for n, s in each.shapes.items()}} for each in profiles[role]]
        told = {"role": role, "onnx": str(bundle / graph.file), "profiles": ranges}
        path.write_text(json.dumps(told), "utf-8")
        listed = record_file(path)
        source = Source(graph.file, manifest.files[graph.file].sha256, {})
        records[role] = EngineRecord(source, profiles[role], listed.size, listed.sha256, 0.1, ())
    build = BuildRecord(BUILD_SCHEMA, sm, flavour.name, flavour.version, BuildOptions(), records)
    (folder / BUILD_NAME).write_text(to_build_json(build), "utf-8")
    return build


def _numpy(kind):
    names = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(bool)": "bool"}
    return np.dtype(names[kind])
