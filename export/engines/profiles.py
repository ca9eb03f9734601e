"""Optimisation profiles: the ranges of shapes an engine is compiled for, from the names of the graphs' axes.

TensorRT picks kernels per profile, and one range from a single token to a whole prompt would serve neither, so the
decoder has two: ``prefill``, one sequence of many positions straight into its slot, and ``decode``, one position of
every slot. A graph says what its axes are by their names; this module alone knows what range a name has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from parrot_runtime.engines import Profile, ShapeRange
from parrot_runtime.errors import BundleError, InputError
from parrot_runtime.manifest import Graph, ModelDims, Tensor

DEFAULT_MAX_BATCH = 8
# What the ranges are tuned for: a question with its prompt's fixed text. Measured on no GPU; the extremes stay correct.
_USUAL_TEXT = 64

Range = tuple[int, int, int]


@dataclass(frozen=True)
class Limits:
    """The largest calls engines must take: ``max_batch`` slots, pictures or questions at once, ``max_len`` positions.

    ``image_tokens`` are the positions one picture takes.
    """

    max_batch: int
    max_len: int
    image_tokens: int

    @property
    def usual_prompt(self) -> int:
        """The prompt most calls have: a picture and a question."""
        return min(self.max_len, self.image_tokens + _USUAL_TEXT)


def limits(dims: ModelDims, *, max_batch: int | None = None, max_len: int | None = None) -> Limits:
    """The limits of a model: ``DEFAULT_MAX_BATCH`` and the bundle's longest sequence unless told. Raises InputError."""
    least, max_batch = dims.image_tokens + 2, DEFAULT_MAX_BATCH if max_batch is None else max_batch
    if max_batch < 1:
        raise InputError(f"--max-batch is {max_batch}; expected 1 or more")
    if max_len is not None and not least <= max_len <= dims.max_len:
        raise InputError(
            f"--max-len is {max_len}; this bundle takes {least} (one picture and a token) to {dims.max_len}; "
            "for longer sequences export it again with a larger --max-len"
        )
    return Limits(max_batch, max_len or dims.max_len, dims.image_tokens)


def profiles(role: str, graph: Graph, limits: Limits) -> tuple[Profile, ...]:
    """The profiles of a graph: the decoder's ``prefill`` and ``decode``, anybody else's ``default``.

    Every input stands in every profile, those of fixed shape too: TensorRT wants ranges for the others only, and who
    binds buffers wants all. Raises BundleError for an axis whose name has no range.
    """
    ranges = _DECODER if role == "decoder" else {"default": _ONCE}
    return tuple(
        Profile(name, {tensor.name: _shapes(graph, tensor, axes, limits) for tensor in graph.inputs})
        for name, axes in ranges.items()
    )


def _shapes(graph: Graph, tensor: Tensor, axes: Mapping[str, Callable[[Limits], Range]], limits: Limits) -> ShapeRange:
    columns = []
    for axis in tensor.axes:
        if isinstance(axis, int):
            columns.append((axis, axis, axis))
        elif axis in axes:
            columns.append(axes[axis](limits))
        else:
            raise BundleError(
                f"{graph.file}: the axis '{axis}' of '{tensor.name}' has no range; known are {', '.join(axes)}: "
                "export the bundle again with this version"
            )
    return ShapeRange(*zip(*columns, strict=True)) if columns else ShapeRange((), (), ())


def _up_to_batch(limits: Limits) -> Range:
    return 1, 1, limits.max_batch


def _one(_limits: Limits) -> Range:
    return 1, 1, 1


def _cache(limits: Limits) -> Range:
    """A cache may be allocated shorter than the longest; it is mostly used whole."""
    return 1, limits.max_len, limits.max_len


_ONCE: dict[str, Callable[[Limits], Range]] = {
    "images": _up_to_batch,
    "batch": _up_to_batch,
    "text": lambda limits: (1, min(_USUAL_TEXT, limits.max_len), limits.max_len),
}
# seq are the positions of this call and past_len those before it, total_len both; max_len is a static cache's length.
# past_len and seq must add up to total_len at the smallest, the usual and the largest call, or TensorRT has no largest
# call to plan for. So a concatenated cache is prefilled from nothing, which is how every prompt starts; what is added
# to one that holds something goes through ``decode``. A static cache, whose length is fixed, takes either.
_DECODER: dict[str, dict[str, Callable[[Limits], Range]]] = {
    "prefill": {
        "batch": _one,
        "seq": lambda limits: (1, limits.usual_prompt, limits.max_len),
        "past_len": lambda _limits: (0, 0, 0),
        "total_len": lambda limits: (1, limits.usual_prompt, limits.max_len),
        "max_len": _cache,
    },
    "decode": {
        "batch": _up_to_batch,
        "seq": _one,
        "past_len": lambda limits: (0, limits.usual_prompt - 1, limits.max_len - 1),
        "total_len": lambda limits: (1, limits.usual_prompt, limits.max_len),
        "max_len": _cache,
    },
}
