"""TensorRT's graphs without TensorRT: the very same ONNX, operator by operator, on onnxruntime's CPU provider.

This is how they are verified on machines without a GPU. It says that the graphs compute what they should, roundings of
the graph's own types included; what TensorRT makes of them is for a GPU to show. One sequence at a time.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parrot_runtime.backends.onnxruntime import import_onnxruntime
from parrot_runtime.errors import BundleError
from parrot_runtime.manifest import Graph, Manifest


class NoSuchKernel(BundleError):
    """onnxruntime's CPU provider lacks an operator of a graph in one of its types."""


@dataclass
class _Cache:
    """One sequence: its cache's tensors by name, and how many positions it holds."""

    slots: int
    max_len: int
    past: dict[str, np.ndarray]
    held: int = field(default=0)


class TensorRTOnCpu:
    """``Backend`` over a bundle's TensorRT graphs, of either dialect, for one slot.

    Raises NoSuchKernel when onnxruntime has no kernel for a graph, BundleError when it refuses one.
    """

    name = "TensorRT's graphs on onnxruntime"
    embeds_dtype = "float32"

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._graphs = manifest.tensorrt
        self._static = manifest.tensorrt_dialect == "tensorrt-modern"
        self._sessions = {role: _session(folder / graph.file) for role, graph in self._graphs.items()}

    def encode_images(self, pixel_values: np.ndarray) -> np.ndarray:
        """See ``Backend.encode_images``."""
        return self._run("encoder", pixel_values=pixel_values)["image_features"]

    def route(
        self, image_features: np.ndarray, text_embeds: np.ndarray, text_mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Backend.route``."""
        got = self._run("experts", image_features=image_features, text_embeds=text_embeds, text_mask=text_mask)
        return got["visual_tokens"], got["routing"]

    def new_cache(self, slots: int, max_len: int) -> _Cache:
        """See ``Backend.new_cache``; of one slot."""
        if slots != 1:
            raise ValueError(f"{slots} slots; one sequence at a time is verified")
        return _Cache(slots, max_len, empty_cache(self._graphs["decoder"]))

    def prefill(self, inputs_embeds: np.ndarray, cache: _Cache, *, slot: int = 0, start: int = 0) -> np.ndarray:
        """See ``Backend.prefill``; into the only slot, from its start."""
        if slot or start:
            raise ValueError(f"slot {slot} from {start}; one sequence at a time is verified, from its start")
        cache.past, cache.held = empty_cache(self._graphs["decoder"]), 0
        return self._extend(inputs_embeds, cache)

    def decode(self, inputs_embeds: np.ndarray, lengths: np.ndarray, cache: _Cache) -> np.ndarray:
        """See ``Backend.decode``; of the only slot, which must hold ``lengths``."""
        if list(lengths) != [cache.held]:
            raise ValueError(f"lengths are {list(lengths)}, but the sequence has {cache.held} positions")
        return self._extend(inputs_embeds, cache)[None]

    def _extend(self, embeds: np.ndarray, cache: _Cache) -> np.ndarray:
        """``[T, C]`` behind what the cache holds; logits ``[vocab]`` after the last."""
        count = len(embeds)
        places = np.arange(cache.held, cache.held + count, dtype=np.int64)[None]
        if self._static:
            controls = {"write_index": places[0, :1], "lengths": np.array([count], np.int64)}
        else:
            controls = {"position_ids": places, "attention_mask": np.ones((1, cache.held + count), np.int64)}
        got = self._run("decoder", inputs_embeds=embeds[None], **controls, **cache.past)
        cache.past = {name: got[name.replace("past_key_values.", "present.")] for name in cache.past}
        cache.held += count
        return got["logits"][0]

    def _run(self, role: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        names = [tensor.name for tensor in self._graphs[role].outputs]
        try:
            return dict(zip(names, self._sessions[role].run(names, inputs), strict=True))
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise BundleError(
                f"{self._graphs[role].file}: onnxruntime cannot run this graph ({_first_line(error)}); export it again"
            ) from error


def empty_cache(decoder: Graph) -> dict[str, np.ndarray]:
    """The cache of a sequence that has not begun: a buffer of fixed length, or nothing to concatenate to."""
    sizes = {"batch": 1, "past_len": 0}
    return {
        tensor.name: np.zeros([sizes[axis] if isinstance(axis, str) else axis for axis in tensor.axes], tensor.dtype)
        for tensor in decoder.inputs
        if tensor.name.startswith("past_key_values.")
    }


def _session(path: Path) -> Any:
    ort = import_onnxruntime()
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as KernelIsMissing

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # As the graph is written: optimisers move roundings about, and TensorRT has optimisers of its own.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except KernelIsMissing as error:
        raise NoSuchKernel(f"{path.name}: onnxruntime cannot run it on a CPU ({_first_line(error)})") from error
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise BundleError(
            f"{path}: onnxruntime cannot load this graph ({_first_line(error)}); export it again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
