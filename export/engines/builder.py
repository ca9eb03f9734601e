"""One ONNX file to one engine file, by any TensorRT.

The graph is strongly typed: precision stands in it and in no flag here. What the parser or the builder refuses becomes
one line; the whole log stands in the traceback that ``-v`` shows.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_export.engines.callbacks import HashedFile, monitor, stream
from parrot_export.engines.messages import build_error, parse_error
from parrot_runtime.engines import BuildOptions, Profile
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.flavours import Flavour
from parrot_runtime.tensorrt_log import Calls, logger


@dataclass(frozen=True)
class Built:
    """An engine file's size in bytes and SHA-256, the seconds it took, TensorRT's warnings, and the timings to keep."""

    size: int
    sha256: str
    seconds: float
    warnings: tuple[str, ...]
    timings: bytes


def build_engine(
    onnx: Path,
    engine: Path,
    flavour: Flavour,
    sm: int,
    profiles: Sequence[Profile],
    options: BuildOptions,
    *,
    timings: bytes = b"",
    advance: Callable[[int], None] = lambda _steps: None,
) -> Built:
    """Build the graph ``onnx`` for the compute capability ``sm`` into the file ``engine``.

    External data is read from where ``onnx`` says. ``timings`` are those an earlier build of the same GPU and version
    gave; ``advance`` moves a bar of ``callbacks.STEPS``. Raises InputError for a graph that TensorRT does not take or
    that has an input nothing depends on, ParrotError when a build fails, OSError when the engine cannot be written.
    """
    started = time.perf_counter()
    trt, calls = flavour.trt, Calls()
    where = f"{onnx}: {flavour}"
    with logger(trt, calls) as log:
        builder = trt.Builder(log)
        network = flavour.create_network(builder)
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(onnx)):
            calls.reraise()
            raise _with_log(InputError(f"{where} does not take this graph: {_refused(parser, calls)}"), calls)
        _require_used_inputs(network, where)
        config = builder.create_builder_config()
        flavour.aim(config, sm)
        _set_options(trt, config, options)
        _add_profiles(builder, network, config, profiles, where)
        config.progress_monitor = monitor(trt, calls, advance)
        flavour.use_timings(config, timings)
        with open(engine, "wb", buffering=0) as file:
            written = HashedFile(file)
            done = _run(flavour, builder, network, config, calls, written)
        calls.reraise()
        if not done:
            raise _with_log(ParrotError(f"{where} built no engine for SM {sm}: {build_error(calls.errors)}"), calls)
        kept = flavour.timings(config)
    return Built(written.size, written.sha256, time.perf_counter() - started, tuple(calls.warnings), kept)


def _run(flavour: Flavour, builder: Any, network: Any, config: Any, calls: Calls, file: HashedFile) -> bool:
    if flavour.streams:
        return builder.build_serialized_network_to_stream(network, config, stream(flavour.trt, calls, file))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return False
    file.write(plan)
    return True


def _refused(parser: Any, calls: Calls) -> str:
    if not parser.num_errors:
        return "; ".join(calls.errors) or "no reason given"
    error = parser.get_error(0)
    code = error.code().name
    return parse_error(
        name=error.node_name(), operator=error.node_operator(), code=code, description=error.desc(), log=calls.errors
    )


def _require_used_inputs(network: Any, where: str) -> None:
    """Every input must reach an output.

    A parser may take an operator and leave one of its inputs out; the engine then answers as if that input did not
    exist, and nothing but a warning says so. An input that is used for its shape alone counts as used.
    """
    if not network.num_outputs:
        raise InputError(f"{where} finds no graph in this file; export the bundle again")
    makers = {}
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        inputs = [layer.get_input(slot) for slot in range(layer.num_inputs)]
        needs = [tensor.name for tensor in inputs if tensor is not None]
        makers |= {layer.get_output(slot).name: needs for slot in range(layer.num_outputs)}
    used = _reached(makers, [network.get_output(number).name for number in range(network.num_outputs)])
    names = [network.get_input(number).name for number in range(network.num_inputs)]
    unused = [name for name in names if name not in used]
    if unused:
        raise InputError(
            f"{where} leaves the input '{unused[0]}' unused, so its answers would ignore it; "
            "export the bundle again for this target"
        )


def _reached(makers: Mapping[str, list[str]], names: list[str]) -> set[str]:
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += makers.get(name, ())
    return seen


def _set_options(trt: Any, config: Any, options: BuildOptions) -> None:
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)


def _add_profiles(builder: Any, network: Any, config: Any, profiles: Sequence[Profile], where: str) -> None:
    inputs = {(tensor := network.get_input(number)).name: tensor for number in range(network.num_inputs)}
    for profile in profiles:
        if set(profile.shapes) != set(inputs):
            name = min(set(profile.shapes) ^ set(inputs))
            raise InputError(
                f"{where}: the input '{name}' is not in both the graph and the profile '{profile.name}'; "
                "export the bundle again"
            )
        ranges = builder.create_optimization_profile()
        for name, shapes in profile.shapes.items():
            _require_fit(tuple(inputs[name].shape), shapes, f"{where}: '{name}' in the profile '{profile.name}'")
            ranges.set_shape(name, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(ranges) < 0:
            raise ParrotError(f"{where} does not take the profile '{profile.name}'; report this")


def _require_fit(axes: tuple[int, ...], shapes: Any, where: str) -> None:
    """Fixed axes of the graph, those that are not -1, must be the profile's."""
    fits = len(axes) == len(shapes.min) and all(
        axis in (-1, low) and axis in (-1, high) for axis, low, high in zip(axes, shapes.min, shapes.max, strict=True)
    )
    if not fits:
        raise InputError(f"{where} is {shapes.min} to {shapes.max}, in the graph {axes}; export the bundle again")


def _with_log(error: ParrotError, calls: Calls) -> ParrotError:
    """The error with TensorRT's own words, which a traceback shows and the one line does not."""
    error.__cause__ = ParrotError("\n".join(("TensorRT's log:", *calls.errors)))
    return error
