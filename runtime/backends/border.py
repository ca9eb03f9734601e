"""What a bundle's manifest says of onnxruntime's graphs, held against the graphs and against the model."""

from pathlib import Path
from typing import Any

from parrot_runtime.errors import BundleError
from parrot_runtime.manifest import PREFILL, Graph, Manifest

_ONNX_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "bool": "tensor(bool)",
}


def check_border(path: Path, graph: Graph, session: Any) -> None:
    """The inputs and outputs of ``session`` must be the manifest's, by name, type and axes. Raises BundleError."""
    for what, declared, found in (
        ("inputs", graph.inputs, session.get_inputs()),
        ("outputs", graph.outputs, session.get_outputs()),
    ):
        told = {tensor.name: (_ONNX_TYPES.get(tensor.dtype, tensor.dtype), len(tensor.axes)) for tensor in declared}
        real = {node.name: (node.type, len(node.shape)) for node in found}
        if told != real:
            name = next(iter(sorted(told.items() ^ real.items())))[0]
            raise BundleError(
                f"{path}: the graph's {what} are not the manifest's: '{name}' is {real.get(name)} in the graph, "
                f"{told.get(name)} in the manifest; export it again"
            )
        shapes = {node.name: node.shape for node in found}
        for tensor in declared:
            for axis, real in zip(tensor.axes, shapes[tensor.name], strict=True):
                if isinstance(axis, int) and isinstance(real, int) and axis != real:
                    raise BundleError(
                        f"{path}: '{tensor.name}' is {shapes[tensor.name]} in the graph, {list(tensor.axes)} in the "
                        "manifest; export it again"
                    )


def check_decoders(manifest: Manifest) -> None:
    """The names at the borders of the decoder, and of the graph for prompts if there is one. Raises BundleError."""
    _check_decoder(manifest, manifest.graphs["decoder"], {"logits"})
    if PREFILL in manifest.graphs:
        _check_decoder(manifest, manifest.graphs[PREFILL], set())


def check_shapes(manifest: Manifest) -> None:
    """Where the graphs fix an axis, it must be the model's, or the picture's: else they fail at the first question.

    Raises BundleError.
    """
    dims, side = manifest.model, manifest.image.size
    features, cache = (None, dims.image_tokens, dims.hidden_size), (None, dims.kv_heads, None, dims.head_dim)
    wanted = {
        "encoder": {"pixel_values": (None, 3, side, side), "image_features": features},
        "experts": {"visual_tokens": features, "routing": (None, dims.experts)},
        "decoder": {
            "inputs_embeds": (None, None, dims.hidden_size),
            "logits": (None, dims.vocab_size),
            "past_key_values.0.key": cache,
            "past_key_values.0.value": cache,
        },
    }
    for role, tensors in wanted.items():
        if role not in manifest.graphs:
            continue
        graph = manifest.graphs[role]
        for name, axes in tensors.items():
            told = graph.tensor(name).axes
            if any(isinstance(axis, int) and real not in (None, axis) for axis, real in zip(told, axes, strict=False)):
                raise BundleError(
                    f"{graph.file}: '{name}' is {list(told)}, and the manifest's model needs "
                    f"{['any' if axis is None else axis for axis in axes]}; export it again"
                )


def _check_decoder(manifest: Manifest, decoder: Graph, results: set[str]) -> None:
    kinds = [f"{kind}.%d.{part}" for kind in ("past_key_values", "present") for part in ("key", "value")]
    if len(decoder.inputs) < 2 * manifest.model.layers:  # before as many names are made as a manifest may claim
        raise BundleError(
            f"{decoder.file}: {len(decoder.inputs)} inputs for {manifest.model.layers} layers; export it again"
        )
    caches = {kind % layer for kind in kinds for layer in range(manifest.model.layers)}
    border = {"inputs_embeds", "seqlens_k", "total_sequence_length"} | results | caches
    names = {tensor.name for tensor in (*decoder.inputs, *decoder.outputs)}
    if names != border:
        raise BundleError(f"{decoder.file}: '{min(names ^ border)}' is missing or not expected; export it again")
    for name in caches:
        if decoder.tensor(name).dtype != manifest.kv_dtype:
            raise BundleError(f"{decoder.file}: '{name}' is not {manifest.kv_dtype}, the kv_dtype; export it again")
