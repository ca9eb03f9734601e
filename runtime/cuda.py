"""The little of CUDA the runtime needs, through cuda-python: memory, copies and captured graphs, on one stream.

Everything is enqueued in order on the stream of its ``Cuda`` and nothing waits but ``synchronize``. Memory goes back
when the object that holds it does.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from parrot_runtime.errors import InputError, ParrotError

# From the CUDA runtime API reference: cudaErrorMemoryAllocation and cudaStreamNonBlocking.
_OUT_OF_MEMORY = 2
_NON_BLOCKING = 1


def load_runtime_api() -> Any:
    """The CUDA runtime API as cuda-python binds it. Raises InputError where that is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise InputError(
            "cuda-python is not installed; run `pip install 'parrot-edge[tensorrt]'` or 'parrot-edge[tensorrt-rtx]'"
        ) from error
    return runtime


class Memory:
    """``size`` bytes on the device at ``address``."""

    def __init__(self, address: int, size: int, free: Callable[[int], Any]) -> None:
        self.address, self.size = address, size
        self._finalizer = weakref.finalize(self, free, address)


class CapturedGraph:
    """Work captured from the stream, launched again at the price of one call. ``kept`` is what it writes and reads."""

    def __init__(self, cuda: "Cuda", executable: Any, kept: Any) -> None:
        self._cuda, self._executable, self._kept = cuda, executable, kept
        self._finalizer = weakref.finalize(self, cuda.api.cudaGraphExecDestroy, executable)

    def launch(self) -> None:
        """Enqueue all of it."""
        self._cuda.call("cudaGraphLaunch", self._executable, self._cuda.handle)


class Cuda:
    """The current device, and a stream of its own. ``api`` is for tests. Raises ParrotError when CUDA does not start.

    Every method that calls CUDA raises ParrotError with CUDA's own words when that fails.
    """

    def __init__(self, api: Any = None) -> None:
        self.api = load_runtime_api() if api is None else api
        (self.handle,) = self.call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        self._finalizer = weakref.finalize(self, self.api.cudaStreamDestroy, self.handle)

    @property
    def stream(self) -> int:
        """The stream as TensorRT takes it."""
        return int(self.handle)

    def call(self, name: str, *arguments: Any) -> tuple:
        """What the API's function ``name`` returns behind its status, which must be success."""
        status, *values = getattr(self.api, name)(*arguments)
        if int(status):
            raise ParrotError(self._explain(name, status))
        return tuple(values)

    def allocate(self, size: int) -> Memory:
        """``size`` bytes on the device; what is in them is anybody's."""
        size = max(size, 1)
        status, address = self.api.cudaMalloc(size)
        if int(status) == _OUT_OF_MEMORY:
            free, total = self.call("cudaMemGetInfo")
            raise ParrotError(
                f"the GPU has {free >> 20:,} of {total >> 20:,} MiB free and {size >> 20:,} MiB are needed; close what "
                "else uses it, or build engines for less with `parrot-export engines --max-batch 1 --max-len N`"
            )
        if int(status):
            raise ParrotError(self._explain("cudaMalloc", status))
        return Memory(int(address), size, self.api.cudaFree)

    def zeros(self, size: int) -> Memory:
        """``size`` zero bytes on the device."""
        memory = self.allocate(size)
        self.call("cudaMemsetAsync", memory.address, 0, memory.size, self.handle)
        return memory

    def pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array of zeros in the host's memory that copies need not stage; it frees itself."""
        count, kind = int(np.prod(shape)), np.dtype(dtype)
        (address,) = self.call("cudaMallocHost", max(count * kind.itemsize, 1))
        buffer = (ctypes.c_byte * max(count * kind.itemsize, 1)).from_address(int(address))
        # Every view of the array keeps the buffer, and the buffer's end is the memory's.
        weakref.finalize(buffer, self.api.cudaFreeHost, address)
        array = np.frombuffer(buffer, kind, count).reshape(shape)
        array[...] = 0
        return array

    def upload(self, array: np.ndarray, address: int) -> None:
        """Copy a contiguous ``array`` of the host to ``address``; it must live until the stream has done so."""
        self.copy(array.ctypes.data, address, array.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        """Copy from ``address`` to a contiguous ``array`` of the host."""
        self.copy(address, array.ctypes.data, array.nbytes)

    def copy(self, source: int, target: int, size: int) -> None:
        """Copy ``size`` bytes between any two addresses."""
        if size:
            # cudaMemcpyDefault: the driver sees from the addresses which way a copy goes.
            kind = self.api.cudaMemcpyKind.cudaMemcpyDefault
            self.call("cudaMemcpyAsync", target, source, size, kind, self.handle)

    def copy_lines(
        self, source: int, source_pitch: int, target: int, target_pitch: int, width: int, lines: int
    ) -> None:
        """Copy ``lines`` pieces of ``width`` bytes that lie a pitch apart on either side."""
        if width and lines:
            kind = self.api.cudaMemcpyKind.cudaMemcpyDefault
            self.call("cudaMemcpy2DAsync", target, target_pitch, source, source_pitch, width, lines, kind, self.handle)

    def synchronize(self) -> None:
        """Wait until everything enqueued is done."""
        self.call("cudaStreamSynchronize", self.handle)

    def capture(self, work: Callable[[], Any], kept: Any) -> CapturedGraph:
        """The graph of what ``work`` enqueues, which is recorded and not run. ``kept`` stays alive with the graph."""
        with self._capturing() as found:
            work()
        (graph,) = found
        try:
            (executable,) = self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.api.cudaGraphDestroy(graph)
        return CapturedGraph(self, executable, kept)

    @contextmanager
    def _capturing(self) -> Iterator[list]:
        mode = self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", self.handle, mode)
        found: list = []
        try:
            yield found
        except BaseException:
            self.api.cudaStreamEndCapture(self.handle)  # a stream left capturing refuses everything else
            raise
        found += self.call("cudaStreamEndCapture", self.handle)

    def _explain(self, name: str, status: Any) -> str:
        _, text = self.api.cudaGetErrorString(status)
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        return f"the GPU failed in {name} ({words}); see what nvidia-smi says, and run with -v for where it happened"
