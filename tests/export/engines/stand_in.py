"""A builder that takes no time, and what asks the cache to use it."""

from pathlib import Path
from types import SimpleNamespace

from parrot_export.engines import cache
from parrot_export.engines.builder import Built
from parrot_export.engines.cache import EngineRequest, build_engines
from parrot_export.engines.callbacks import HashedFile
from parrot_export.engines.targets import Target
from parrot_runtime.flavours import Flavour

RTX = Flavour("tensorrt-rtx", "1.7.1", SimpleNamespace(Builder=object))


def on(sm: int = 89, flavour: Flavour = RTX) -> Target:
    """``sm``, as if somebody had named it."""
    return Target(flavour, (sm,), True, None)


def run(bundle: Path, target: Target | None = None, **settings) -> cache.Engines:
    """The engines of one GPU."""
    (engines,) = build_engines(EngineRequest(bundle=bundle, **settings), target=target or on())
    return engines


def install(monkeypatch) -> list[tuple[str, int, bytes]]:
    """A builder that writes the graph's name; the list of what it will have been asked to build."""
    calls = []

    def build(onnx, engine, flavour, sm, profiles, options, *, timings, advance):
        calls.append((onnx.name, sm, timings))
        with open(engine, "wb") as file:
            written = HashedFile(file)
            written.write(f"{onnx.name} for {sm}".encode())
        return Built(written.size, written.sha256, 0.25, (), timings + b"t")

    monkeypatch.setattr(cache, "build_engine", build)
    return calls
