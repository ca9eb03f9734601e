"""The TensorRTs: ``tensorrt`` 10 and 11, and ``tensorrt_rtx``; one Python API, and every difference is in this module.

- TensorRT 10 types a network strongly only when asked to; 11 and RTX always do.
- TensorRT builds for the GPU that is present and times its kernels there; RTX builds for any GPU it knows, on a machine
  without one, and chooses kernels where the engine runs. So a timing cache helps the first, and a runtime cache, kept
  by whoever runs the engine, the second.
- A build can be streamed to a file since 10.12; before that, the whole engine comes as one piece of memory.
- RTX finishes compiling where an engine runs, and records a whole step as one CUDA graph when it is told to; with
  TensorRT whoever runs the engine records it.
"""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.gpu import Gpu

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
FLAVOURS = tuple(MODULES)
_OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 0)}


@dataclass(frozen=True)
class Flavour:
    """One installed TensorRT: ``name`` from FLAVOURS, its full version, and its imported module."""

    name: str
    version: str
    trt: Any

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def needs_gpu(self) -> bool:
        """Whether it builds for the GPU that is present only."""
        return self.name == "tensorrt"

    def sms(self, gpu: Gpu | None) -> tuple[int, ...]:
        """The compute capabilities it can build for, ascending, on a machine with ``gpu``."""
        if self.needs_gpu:
            return (gpu.sm,) if gpu else ()
        names = (re.fullmatch(r"SM(\d+)", name) for name in self.trt.ComputeCapability.__members__)
        here = {gpu.sm} if gpu else set()
        return tuple(sorted({int(match[1]) for match in names if match} | here))

    def create_network(self, builder: Any) -> Any:
        """An empty strongly typed network."""
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return builder.create_network(0 if flag is None else 1 << int(flag))

    def aim(self, config: Any, sm: int) -> None:
        """Make ``config`` build for ``sm``, which is one of ``sms``. Raises ParrotError when that is refused."""
        if self.needs_gpu:
            return
        config.num_compute_capabilities = 1
        # A GPU it has no name for can be built for only where it is: ``sms`` says so of no other.
        known = self.trt.ComputeCapability
        if not config.set_compute_capability(getattr(known, f"SM{sm}", known.CURRENT), 0):
            raise ParrotError(f"{self} does not build for SM {sm}; choose another with --sm")

    def use_timings(self, config: Any, timings: bytes) -> None:
        """Start from the timings an earlier build kept; those of another GPU or version are not used."""
        if self.needs_gpu and not config.set_timing_cache(config.create_timing_cache(timings), False):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def timings(self, config: Any) -> bytes:
        """The timings ``config`` holds after a build, for the next; nothing where kernels are not timed."""
        return bytes(config.get_timing_cache().serialize()) if self.needs_gpu else b""

    @property
    def streams(self) -> bool:
        """Whether a build can be streamed to a file."""
        return hasattr(self.trt.Builder, "build_serialized_network_to_stream") and hasattr(self.trt, "IStreamWriter")

    @property
    def records_graphs(self) -> bool:
        """Whether a context that repeats its call records it as a CUDA graph by itself."""
        return not self.needs_gpu

    def create_compiler(self, engine: Any, compiled: bytes) -> Any:
        """What compiles ``engine`` for this GPU as it runs, and remembers; None where a build left nothing to compile.

        ``compiled`` is what an earlier one ``serialize()``d, if any; another driver's or version's is not used.
        """
        if self.needs_gpu:
            return None
        compiler = engine.create_runtime_config().create_runtime_cache()
        if compiled:
            compiler.deserialize(compiled)
        return compiler

    def create_context(self, engine: Any, compiler: Any, *, repeats: bool) -> Any:
        """A context of ``engine`` whose scratch memory the caller gives; None when it cannot be made.

        ``repeats`` says that calls of the same shapes and addresses will come again and again.
        """
        strategy = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.needs_gpu:
            return engine.create_execution_context(strategy)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.set_runtime_cache(compiler)
        if repeats and hasattr(self.trt, "CudaGraphStrategy"):
            config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return engine.create_execution_context(runtime_config=config)


def installed() -> tuple[str, ...]:
    """The flavours that are installed; imports none of them."""
    return tuple(name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None)


def load_flavour(name: str) -> Flavour:
    """Import the flavour ``name``. Raises InputError when it is unknown, not installed, broken or too old."""
    if name not in MODULES:
        raise InputError(f"the flavour '{name}' is not known; choose {' or '.join(FLAVOURS)}")
    try:
        module = importlib.import_module(MODULES[name])
    except (ImportError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} cannot be imported ({first}); run `pip install 'parrot-edge[{name}]'`") from error
    flavour = Flavour(name, module.__version__, module)
    if tuple(map(int, re.findall(r"\d+", flavour.version)[:2])) < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        raise InputError(f"{flavour} is too old; run `pip install '{MODULES[name]}>={oldest}'`")
    return flavour
