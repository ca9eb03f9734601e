"""The three graphs on ONNX Runtime.

The KV cache is one array per layer for keys and one for values, ``[slots, kv_heads, max_len, head_dim]``. Each
``present.*`` is bound to the memory of its ``past_key_values.*``, and GroupQueryAttention then writes the new positions
in place: no step copies the cache. A slot is a slice of the arrays, so a prompt is prefilled at batch 1 straight into
it, while a decode step runs over the first slots together, each row at its own length.
"""

from __future__ import annotations

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from parrot_runtime.backends.border import check_border, check_decoders, check_shapes
from parrot_runtime.errors import BundleError, InputError, ParrotError
from parrot_runtime.manifest import PREFILL, Graph, Manifest, require_graphs

# The decoder's option: of how many positions at its end there are logits. Graphs of older exports have it not.
_KEPT = "kept_positions"


def available() -> bool:
    """Whether onnxruntime is installed; does not import it."""
    return importlib.util.find_spec("onnxruntime") is not None


class OrtCache:
    """Keys and values of ``slots`` sequences; pages of memory are taken as positions are first written."""

    def __init__(self, slots: int, max_len: int, layers: int, shape: tuple[int, int], dtype: str) -> None:
        self.slots, self.max_len = slots, max_len
        kv_heads, head_dim = shape
        # Zeros, not empty: 0 x NaN from memory nobody wrote would be NaN.
        self.arrays = [np.zeros((slots, kv_heads, max_len, head_dim), dtype) for _ in range(2 * layers)]
        # By slots and positions.
        self.steps: dict[tuple[int, int, int], _DecodeStep] = {}


class OnnxRuntimeBackend:
    """``Backend`` over onnxruntime's CPU provider; one InferenceSession per graph, created side by side.

    ``threads`` is the number each graph may use (default: onnxruntime's choice, the physical cores). Raises InputError
    when onnxruntime is not installed, BundleError when a graph cannot be loaded or is not what the manifest says.
    """

    name = "onnxruntime"
    copies = True
    max_slots = None

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int | None = None) -> None:
        ort = import_onnxruntime()
        require_graphs(folder, manifest)
        self._ort = ort
        self._dims = manifest.model
        self.max_len = manifest.model.max_len
        self._kv_dtype = manifest.kv_dtype
        self._graphs = manifest.graphs
        check_decoders(manifest)
        check_shapes(manifest)
        self.embeds_dtype = manifest.graphs["decoder"].tensor("inputs_embeds").dtype

        def create(role: str) -> Any:
            return _session(ort, folder / manifest.graphs[role].file, manifest.graphs[role], role, threads)

        with ThreadPoolExecutor(len(manifest.graphs)) as pool:
            self._sessions = dict(zip(manifest.graphs, pool.map(create, manifest.graphs), strict=True))
        options = {node.name for node in self._sessions["decoder"].get_overridable_initializers()}
        self.extends = _KEPT in options and not manifest.rounds_rows_together

    def encode_images(self, pixel_values: np.ndarray) -> np.ndarray:
        """See ``Backend.encode_images``."""
        (features,) = self._run("encoder", ["image_features"], pixel_values=pixel_values)
        return features

    def route(
        self, image_features: np.ndarray, text_embeds: np.ndarray, text_mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Backend.route``."""
        inputs = {"image_features": image_features, "text_embeds": text_embeds, "text_mask": text_mask}
        visual_tokens, routing = self._run("experts", ["visual_tokens", "routing"], **inputs)
        return visual_tokens, routing

    def new_cache(self, slots: int, max_len: int) -> OrtCache:
        """See ``Backend.new_cache``."""
        shape = (self._dims.kv_heads, self._dims.head_dim)
        return OrtCache(slots, max_len, self._dims.layers, shape, self._kv_dtype)

    def prefill(self, inputs_embeds: np.ndarray, cache: OrtCache, *, slot: int = 0, start: int = 0) -> np.ndarray:
        """See ``Backend.prefill``."""
        rows, before = slice(slot, slot + 1), len(inputs_embeds) - 1
        if PREFILL in self._sessions and before:
            _DecodeStep(self, cache, rows, inputs_embeds[None, :before], PREFILL)(np.array([start], np.int32))
            inputs_embeds, start = inputs_embeds[before:], start + before
        return _DecodeStep(self, cache, rows, inputs_embeds[None])(np.array([start], np.int32))[0]

    def decode(self, inputs_embeds: np.ndarray, lengths: np.ndarray, cache: OrtCache) -> np.ndarray:
        """See ``Backend.decode``."""
        step = self._step(cache, slice(0, len(inputs_embeds)), 1)
        step.inputs_embeds[:, 0] = inputs_embeds
        return step(lengths)

    def extend(self, inputs_embeds: np.ndarray, cache: OrtCache, *, slot: int, start: int) -> np.ndarray:
        """See ``Backend.extend``."""
        step = self._step(cache, slice(slot, slot + 1), len(inputs_embeds))
        step.inputs_embeds[0] = inputs_embeds
        return step(np.array([start], np.int32))

    def copy(self, cache: OrtCache, *, source: int, target: int, count: int) -> None:
        """See ``Backend.copy``."""
        for array in cache.arrays:
            array[target, :, :count] = array[source, :, :count]

    def _step(self, cache: OrtCache, rows: slice, positions: int) -> _DecodeStep:
        """The step of ``positions`` in the slots ``rows``, bound at its first use."""
        key = rows.start, rows.stop, positions
        if key not in cache.steps:
            empty = np.empty((rows.stop - rows.start, positions, self._dims.hidden_size), self.embeds_dtype)
            cache.steps[key] = _DecodeStep(self, cache, rows, empty, kept=positions)
        return cache.steps[key]

    def _run(self, role: str, outputs: list[str], **inputs: np.ndarray) -> list[np.ndarray]:
        graph = self._graphs[role]
        feed = {name: array.astype(graph.tensor(name).dtype, copy=False) for name, array in inputs.items()}
        try:
            return self._sessions[role].run(outputs, feed)
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise _failed(role, error) from error


class _DecodeStep:
    """The decoder with every input and output bound once; a step then only writes a few numbers and runs.

    ``inputs_embeds`` ``[rows, T, C]`` is the memory the graph reads; ``rows`` says which slots of the cache, and
    ``kept`` of how many of their last positions logits are wanted. The graph for prompts has no logits: its calls
    extend the cache, and what they return means nothing.
    """

    def __init__(
        self,
        backend: OnnxRuntimeBackend,
        cache: OrtCache,
        rows: slice,
        inputs_embeds: np.ndarray,
        role: str = "decoder",
        *,
        kept: int = 1,
    ) -> None:
        self.inputs_embeds = np.ascontiguousarray(inputs_embeds, backend.embeds_dtype)
        count = len(self.inputs_embeds)
        self._last = np.zeros(count, np.int32)
        self._total = np.zeros((), np.int32)
        self._logits = np.empty((count * kept, backend._dims.vocab_size), np.float32)
        self._role, self._session = role, backend._sessions[role]
        self._binding = self._session.io_binding()
        # An OrtValue made from an array shares its memory and does not keep it alive: this list does.
        self._arrays = [self.inputs_embeds, self._last, self._total, self._logits]
        value = backend._ort.OrtValue.ortvalue_from_numpy
        bind_in, bind_out = self._binding.bind_ortvalue_input, self._binding.bind_ortvalue_output
        bind_in("inputs_embeds", value(self.inputs_embeds))
        bind_in("seqlens_k", value(self._last))
        bind_in("total_sequence_length", value(self._total))
        if role != PREFILL:
            bind_out("logits", value(self._logits))
        if kept > 1:
            self._arrays.append(np.array(kept, np.int64))
            bind_in(_KEPT, value(self._arrays[-1]))
        for layer in range(backend._dims.layers):
            for kind, array in (("key", cache.arrays[2 * layer]), ("value", cache.arrays[2 * layer + 1])):
                self._arrays.append(array[rows])
                shared = value(self._arrays[-1])
                bind_in(f"past_key_values.{layer}.{kind}", shared)
                bind_out(f"present.{layer}.{kind}", shared)

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """Run behind ``lengths`` ``[rows]`` positions; logits float32 ``[rows x kept, vocab]``, until the next call."""
        # GroupQueryAttention wants the total of each row less one, and the largest total.
        self._last[:] = lengths + (self.inputs_embeds.shape[1] - 1)
        self._total[...] = self._last.max() + 1
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise _failed(self._role, error) from error
        return self._logits


def import_onnxruntime() -> Any:
    """onnxruntime, told before it starts to report nothing to its maker. Raises InputError where it is missing.

    Since 1.32 its own builds for Linux, macOS and Windows keep a device's number and events under the home directory
    and send them; a person who wants that sets ``ORT_DISABLE_TELEMETRY=0``.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "onnxruntime is not installed; run `pip install 'parrot-edge[cpu]'` "
            "(or 'parrot-edge[cuda]' where something else needs onnxruntime-gpu, never both)"
        ) from error
    return onnxruntime


def _session(ort: Any, path: Path, graph: Graph, role: str, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    if role != "decoder":
        # The threads of a graph that runs once per question must not spin into the decoder's time.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        # By path, never by bytes: external data is then looked for beside the graph and nowhere else.
        session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise BundleError(
            f"{path}: onnxruntime cannot load this graph ({_first_line(error)}); export it again"
        ) from error
    check_border(path, graph, session)
    return session


def _failed(role: str, error: Exception) -> ParrotError:
    return ParrotError(f"the {role} graph failed ({_first_line(error)}); run with -v for all of it")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
