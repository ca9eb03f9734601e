"""TensorRT's graphs in tests: written, run without TensorRT, and compiled by TensorRT-RTX, which needs no GPU."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator
from tiny_checkpoint import HEAD_DIM, KV_HEADS, LAYERS, MAX_LEN

from parrot_export.author import Authored, author
from parrot_export.checkpoint import Checkpoint
from parrot_export.plan import plan
from parrot_runtime.manifest import Graph
from parrot_runtime.tensorrt_log import Calls, logger

CACHE = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class Graphs:
    """Graphs on disk, run by onnxruntime's CPU provider or, with ``reference``, by onnx's own evaluator."""

    def __init__(self, authored: Authored, folder: Path, *, reference: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for file in authored.files:
            file.write(folder)
        authored.save_graphs(folder)
        self.authored, self.folder = authored, folder
        self._load = ReferenceEvaluator if reference else session
        self._loaded = {}

    def path(self, role: str) -> str:
        return str(self.folder / self.authored.graphs[role].file)

    def dtype(self, role: str, tensor: str) -> type:
        return NUMPY[self.authored.graphs[role].tensor(tensor).dtype]

    def run(self, role: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of one graph by name."""
        if role not in self._loaded:
            self._loaded[role] = self._load(self.path(role))
        names = [output.name for output in self.authored.graphs[role].outputs]
        return dict(zip(names, self._loaded[role].run(names, inputs), strict=True))


def session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # The graph as it is written: optimisers move Q/DQ pairs about and fuse them into kernels that round otherwise.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class ModernDecoding:
    """The decoder over its buffers, with a write index per row; beside it the sequences as they grow."""

    def __init__(self, graphs: Graphs, batch: int, shape: tuple[int, ...] = (KV_HEADS, MAX_LEN, HEAD_DIM)) -> None:
        self.graphs = graphs
        dtype = graphs.dtype("decoder", "past_key_values.0.key")
        self.past = {name: np.zeros((batch, *shape), dtype) for name in CACHE}
        width = graphs.authored.graphs["decoder"].tensor("inputs_embeds").axes[2]
        self.sequences = [np.empty((0, width), np.float32) for _ in range(batch)]

    def step(self, embeds: np.ndarray, valid: list[int]) -> np.ndarray:
        """Run ``[batch, seq, C]``, of which row b's first ``valid[b]`` positions are real; its logits."""
        controls = self.controls(embeds, valid)
        self.sequences = [
            np.concatenate([old, new[:count]]) for old, new, count in zip(self.sequences, embeds, valid, strict=True)
        ]
        past = {f"past_key_values.{name}": array for name, array in self.past.items()}
        got = self.graphs.run("decoder", inputs_embeds=embeds, **controls, **past)
        self.past = {name: got[f"present.{name}"] for name in CACHE}
        return got["logits"]

    def controls(self, _embeds: np.ndarray, valid: list[int]) -> dict[str, np.ndarray]:
        lengths = [len(sequence) for sequence in self.sequences]
        return {"write_index": np.array(lengths, np.int64), "lengths": np.array(valid, np.int64)}

    def expected(self, model) -> np.ndarray:
        """torch's logits after each sequence, each computed whole and without a cache."""
        with torch.no_grad():
            rows = [model(inputs_embeds=torch.from_numpy(one[None])).logits[0, -1] for one in self.sequences]
        return torch.stack(rows).numpy()


class ClassicDecoding(ModernDecoding):
    """The decoder over a cache that grows by concatenation, padding included."""

    def __init__(self, graphs: Graphs, batch: int, shape: tuple[int, ...] = (KV_HEADS, MAX_LEN, HEAD_DIM)) -> None:
        super().__init__(graphs, batch, shape)
        self.past = {name: array[:, :, :0] for name, array in self.past.items()}
        self.mask = np.zeros((batch, 0), np.int64)

    def controls(self, embeds: np.ndarray, valid: list[int]) -> dict[str, np.ndarray]:
        steps = np.arange(embeds.shape[1])
        own = steps < np.array(valid)[:, None]
        positions = np.array([len(sequence) for sequence in self.sequences])[:, None] + steps
        self.mask = np.concatenate([self.mask, own.astype(np.int64)], axis=1)
        return {"attention_mask": self.mask, "position_ids": np.where(own, positions, 0)}


DECODING = {"tensorrt-modern": ModernDecoding, "tensorrt-classic": ClassicDecoding}


def random_feed(graph: Graph, **sizes: int) -> dict[str, np.ndarray]:
    """Inputs of a classic graph: numbers for what is float, an empty cache, and nothing masked."""
    feed = {}
    for number, tensor in enumerate(graph.inputs):
        shape = [axis if isinstance(axis, int) else sizes[axis] for axis in tensor.axes]
        if tensor.dtype in NUMPY:
            feed[tensor.name] = np.random.default_rng(number).standard_normal(shape).astype(NUMPY[tensor.dtype])
        else:
            feed[tensor.name] = np.ones(shape, tensor.dtype)
    if "position_ids" in feed:
        feed["position_ids"] = np.broadcast_to(np.arange(sizes["seq"]), feed["position_ids"].shape)
    return feed


def ranges_of(checkpoint: Checkpoint, folder: Path) -> dict[str, float]:
    """How large the inputs of products get on random inputs, by the graphs themselves, which give them out."""
    graphs = Graphs(author(checkpoint, plan("fp32", "tensorrt", "tensorrt-classic"), MAX_LEN), folder)
    sizes = {"batch": 3, "images": 3, "seq": 33, "text": 33, "past_len": 0, "total_len": 33}
    ranges = {}
    for role, graph in graphs.authored.graphs.items():
        model, modules = onnx.load(graphs.path(role)), graphs.authored.products[role]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(value) for value in set(modules.values()))
        loaded = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        seen = loaded.run(list(modules.values()), random_feed(graph, **sizes))
        ranges |= {module: float(np.abs(values).max()) for module, values in zip(modules, seen, strict=True)}
    return ranges


def compile_graph(graphs: Graphs, role: str, capabilities: Sequence[str]) -> tuple[object, list[str]]:
    """``compile_model`` of one graph, for prompts and for steps of one token."""
    inputs = [tensor for tensor in graphs.authored.graphs[role].inputs if any(isinstance(a, str) for a in tensor.axes)]
    profiles = [
        {tensor.name: [_shape(tensor.axes, profile, number) for number in range(3)] for tensor in inputs}
        for profile in (PROFILES if role == "decoder" else PROFILES[:1])
    ]
    return compile_model(graphs.path(role), profiles, capabilities)


# Smallest, usual and largest: a prompt, and one step behind a past.
PROFILES = (
    {"batch": (1, 3, 4), "images": (1, 3, 4), "seq": (1, 33, 64), "text": (1, 33, 64), "past_len": (0, 0, 0)},
    {"batch": (1, 3, 4), "seq": (1, 1, 1), "past_len": (1, 33, MAX_LEN - 1)},
)


def _shape(axes: Sequence[str | int], profile: dict[str, tuple[int, int, int]], number: int) -> tuple[int, ...]:
    sizes = {name: choices[number] for name, choices in profile.items()}
    sizes["total_len"] = sizes["past_len"] + sizes.get("seq", 0)
    return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in axes)


def compile_model(
    path: str, profiles: Sequence[dict[str, list[tuple[int, ...]]]], capabilities: Sequence[str]
) -> tuple[object, list[str]]:
    """Parse and compile a graph for GPUs such as ``SM89``: the engine, None when refused, and what was logged.

    Each profile holds the smallest, usual and largest shape of every input whose shape is not fixed.
    """
    import tensorrt_rtx as trt

    calls = Calls()
    with logger(trt, calls) as log:
        engine = _compiled(trt, log, path, profiles, capabilities)
    return engine, calls.warnings + calls.errors


def _compiled(
    trt: ModuleType,
    log: object,
    path: str,
    profiles: Sequence[dict[str, list[tuple[int, ...]]]],
    capabilities: Sequence[str],
) -> object:
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(path):
        return None
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(capabilities)
    for number, name in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), number)
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for name, choices in profile.items():
            shapes.set_shape(name, *choices)
        config.add_optimization_profile(shapes)
    return builder.build_serialized_network(network, config)
