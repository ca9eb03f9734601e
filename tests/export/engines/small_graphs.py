"""Small graphs authored with onnx.helper, their weights in safetensors files, and bundles that hold them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from parrot_runtime.engines import Profile, ShapeRange
from parrot_runtime.image import ImageRecipe
from parrot_runtime.integrity import record_files
from parrot_runtime.manifest import (
    EMBEDDING_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    Graph,
    Manifest,
    ModelDims,
    PromptRecipe,
    Tensor,
    to_json,
)

HALF = TensorProto.FLOAT16
WIDTH, MAX_LEN, IMAGE_TOKENS, HEAD_DIM = 24, 33, 5, 16
DIMS = ModelDims(
    hidden_size=WIDTH,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=HEAD_DIM,
    vocab_size=40,
    max_len=MAX_LEN,
    image_tokens=IMAGE_TOKENS,
    experts=3,
    expert_kind="mlp",
    residual="paper",
    alpha=1.0,
)


def value(name: str, axes, kind: int = HALF) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, axes)


def save(path: Path, nodes, inputs, outputs, initializers=(), opset: int = 21) -> Path:
    """Write a graph to ``path``."""
    graph = helper.make_graph(nodes, "test", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def stored(folder: Path, file: str, **arrays: np.ndarray) -> list[onnx.TensorProto]:
    """Write ``arrays`` to the safetensors file ``file`` below ``folder``; initialisers that point into it."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    tensors = []
    for name, array in arrays.items():
        start, end = header[name]["data_offsets"]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
        for key, entry in (("location", file), ("offset", 8 + length + start), ("length", end - start)):
            tensor.external_data.add(key=key, value=str(entry))
        tensors.append(tensor)
    return tensors


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


def constant(name: str, array) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def gemm_net(folder: Path, *, inputs=(), after=()) -> Path:
    """``y = x Wᵀ`` in fp16, ``x [batch, 24]``; with more ``inputs``, and with nodes ``after`` that take ``z`` to y."""
    weights = stored(folder, "weights/gemm.safetensors", weight=draw(40, WIDTH))
    gemm = helper.make_node("Gemm", ["x", "weight"], ["z" if after else "y"], name="/net/Gemm", transB=1)
    output = value("y", ["batch", 40] if not after else None)
    return save(folder / "gemm.onnx", [gemm, *after], [value("x", ["batch", WIDTH]), *inputs], [output], weights)


def fp8_net(path: Path) -> Path:
    """A Gemm whose operands pass through fp8."""
    scale = constant("scale", np.float16(0.05))
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    weight = helper.make_tensor("weight", TensorProto.FLOAT8E4M3FN, [40, WIDTH], draw(40 * WIDTH).astype(np.float32))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["wd"]),
        helper.make_node("Gemm", ["xd", "wd"], ["y"], transB=1),
    ]
    inputs, outputs = [value("x", ["batch", WIDTH])], [value("y", ["batch", 40])]
    return save(path, nodes, inputs, outputs, [scale, zero, weight])


def decoder_net(folder: Path) -> Path:
    """Attention over a concatenated cache: two free axes, two profiles, like a decoder in little."""
    weights = stored(folder, "weights/decoder.trt.safetensors", embed=draw(HEAD_DIM, WIDTH), head=draw(40, HEAD_DIM))
    nodes = [
        helper.make_node("Transpose", ["embed"], ["embed_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["inputs_embeds", "embed_t"], ["q"], name="/llm/q/MatMul"),
        helper.make_node("Concat", ["past_key_values.0.key", "q"], ["present.0.key"], axis=1),
        helper.make_node("Transpose", ["present.0.key"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "present.0.key"], ["mixed"]),
        helper.make_node("Transpose", ["head"], ["head_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["mixed", "head_t"], ["logits"], name="/llm/lm_head/MatMul"),
    ]
    inputs = [
        value("inputs_embeds", ["batch", "seq", WIDTH]),
        value("past_key_values.0.key", ["batch", "past_len", HEAD_DIM]),
    ]
    outputs = [value("logits", ["batch", "seq", 40]), value("present.0.key", ["batch", "total_len", HEAD_DIM])]
    return save(folder / "decoder.trt.onnx", nodes, inputs, outputs, weights)


def attention_net(path: Path, *, masked: bool = True) -> Path:
    """Grouped attention over a static cache of 33 positions: TensorScatter writes it, a mask or a length limits it."""
    limit = ["mask"] if masked else ["", "", "", "valid"]
    nodes = [
        helper.make_node("TensorScatter", ["past", "k", "write_index"], ["present"], name="/kv/TensorScatter", axis=2),
        helper.make_node("Attention", ["q", "present", "present", *limit], ["y"], name="/attn/Attention"),
    ]
    inputs = [
        value("q", ["batch", 4, "seq", HEAD_DIM]),
        value("k", ["batch", 2, "seq", HEAD_DIM]),
        value("past", ["batch", 2, MAX_LEN, HEAD_DIM]),
        value("write_index", ["batch"], TensorProto.INT64),
        value("mask", ["batch", 1, "seq", MAX_LEN], TensorProto.BOOL)
        if masked
        else value("valid", ["batch"], TensorProto.INT64),
    ]
    outputs = [value("y", ["batch", 4, "seq", HEAD_DIM]), value("present", ["batch", 2, MAX_LEN, HEAD_DIM])]
    return save(path, nodes, inputs, outputs, opset=24)


def encoder_net(folder: Path, seed: int = 0) -> Path:
    """``pixel_values [images, 24]`` to ``image_features [images, 24]``."""
    weights = stored(folder, "weights/encoder.trt.safetensors", weight=draw(WIDTH, WIDTH, seed=seed))
    gemm = helper.make_node("Gemm", ["pixel_values", "weight"], ["image_features"], transB=1)
    inputs, outputs = [value("pixel_values", ["images", WIDTH])], [value("image_features", ["images", WIDTH])]
    return save(folder / "encoder.trt.onnx", [gemm], inputs, outputs, weights)


def experts_net(folder: Path) -> Path:
    """Features and a masked question to tokens; every input reaches the output, the mask through a Where."""
    nodes = [
        helper.make_node("Unsqueeze", ["text_mask", "last"], ["mask"]),
        helper.make_node("Where", ["mask", "text_embeds", "zero"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["guide"], keepdims=1),
        helper.make_node("Add", ["image_features", "guide"], ["visual_tokens"]),
    ]
    inputs = [
        value("image_features", ["batch", IMAGE_TOKENS, WIDTH]),
        value("text_embeds", ["batch", "text", WIDTH]),
        value("text_mask", ["batch", "text"], TensorProto.BOOL),
    ]
    small = [
        constant("last", np.array([2])),
        constant("middle", np.array([1])),
        constant("zero", np.zeros(1, np.float16)),
    ]
    outputs = [value("visual_tokens", ["batch", IMAGE_TOKENS, WIDTH])]
    return save(folder / "experts.trt.onnx", nodes, inputs, outputs, small)


def write_bundle(folder: Path) -> Path:
    """A bundle that the manifest accepts, with graphs for TensorRT. Its onnxruntime graphs are those same files."""
    paths = {"encoder": encoder_net(folder), "experts": experts_net(folder), "decoder": decoder_net(folder)}
    (folder / TOKENIZER_NAME).write_text("{}")
    save_file({"embed_tokens.weight": draw(40, WIDTH)}, folder / EMBEDDING_NAME)
    graphs = {role: described(path) for role, path in paths.items()}
    manifest = Manifest(
        schema_version=1,
        name="small",
        model=DIMS,
        languages=("en",),
        image=ImageRecipe.clip(28),
        prompt=PromptRecipe("."),
        target="cpu",
        precision="fp16",
        kv_dtype="float16",
        graphs=graphs,
        files=record_files(folder),
        verification={"status": "skipped"},
        tools={},
        tensorrt=graphs,
        tensorrt_dialect="tensorrt-modern",
    )
    return rewrite(folder, manifest)


def rewrite(folder: Path, manifest: Manifest, **changes) -> Path:
    """Write the manifest with ``changes`` and the hashes of what stands in ``folder`` now."""
    manifest = dataclasses.replace(manifest, files=record_files(folder), **changes)
    (folder / MANIFEST_NAME).write_text(to_json(manifest), encoding="utf-8")
    return folder


def described(path: Path) -> Graph:
    """A graph's entry in the manifest, read off the file."""
    graph = onnx.load(path, load_external_data=False).graph
    names = {HALF: "float16", TensorProto.BOOL: "bool", TensorProto.INT64: "int64"}

    def tensors(values) -> tuple[Tensor, ...]:
        kinds = [(v.name, v.type.tensor_type) for v in values]
        return tuple(
            Tensor(name, names[kind.elem_type], tuple(d.dim_param or d.dim_value for d in kind.shape.dim))
            for name, kind in kinds
        )

    return Graph(path.name, tensors(graph.input), tensors(graph.output))


def profile(name: str = "default", **shapes: tuple[tuple[int, ...], ...]) -> Profile:
    """``profile(x=((1, 24), (3, 24), (8, 24)))``."""
    return Profile(name, {key: ShapeRange(*ranges) for key, ranges in shapes.items()})


GEMM_PROFILE = profile(x=((1, WIDTH), (3, WIDTH), (8, WIDTH)))
