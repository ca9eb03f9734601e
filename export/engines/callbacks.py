"""What TensorRT calls back while it builds, beside its log: the progress, and the file an engine is streamed to.

Whatever a callback raises is kept, the build is cancelled at the next step, and ``Calls.reraise`` raises it once
TensorRT has returned.
"""

import hashlib
from collections.abc import Callable
from typing import Any, BinaryIO

from parrot_runtime.tensorrt_log import Calls

# A bar has this many steps.
STEPS = 1000


def monitor(trt: Any, calls: Calls, advance: Callable[[int], None]) -> Any:
    """An ``IProgressMonitor`` that moves a bar of ``STEPS``, and cancels the build when a callback has raised."""
    phases = Phases()
    shown = 0

    def show() -> None:
        nonlocal shown
        reached = int(STEPS * phases.done())
        if reached > shown:
            advance(reached - shown)
            shown = reached

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with calls.guard():
                phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            with calls.guard():
                phases.step(name, step)
                show()
            return calls.raised is None

        def phase_finish(self, name: str) -> None:
            with calls.guard():
                phases.finish(name)
                show()

    return Monitor()


class Phases:
    """How far a build is: phases inside steps of phases, each told how many steps it will have."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._parents: dict[str, str | None] = {}
        self._finished = False

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """The phase ``name`` of ``steps`` steps begins, inside a step of ``parent``."""
        self._steps[name], self._done[name], self._parents[name] = max(steps, 1), 0, parent

    def step(self, name: str, step: int) -> None:
        """Step number ``step`` of ``name`` is done."""
        self._done[name] = step + 1

    def finish(self, name: str) -> None:
        """The phase is over; the outermost one ends the build."""
        self._finished = self._finished or self._parents.get(name) is None
        for phase in (self._steps, self._done, self._parents):
            phase.pop(name, None)

    def done(self) -> float:
        """The share that is done, 0 to 1."""
        return 1.0 if self._finished else self._below(None)

    def _below(self, parent: str | None) -> float:
        inside = [name for name, of in self._parents.items() if of == parent]
        return max((min(1.0, (self._done[n] + self._below(n)) / self._steps[n]) for n in inside), default=0.0)


class HashedFile:
    """An open file that counts and hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        """Write ``data``, a buffer of bytes, whole."""
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += self._file.write(view[written:])
        self._digest.update(view)
        self.size += len(view)
        return len(view)

    @property
    def sha256(self) -> str:
        """The hash of everything written so far."""
        return self._digest.hexdigest()


def stream(trt: Any, calls: Calls, file: HashedFile) -> Any:
    """An ``IStreamWriter`` into ``file``; a write that fails tells TensorRT that nothing was written."""

    class Stream(trt.IStreamWriter):
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            with calls.guard():
                return file.write(data)
            return 0

    return Stream()
