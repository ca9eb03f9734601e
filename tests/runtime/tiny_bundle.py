"""A whole bundle with random weights, authored with onnx.helper, and the same model in float64 numpy.

The graphs follow the interface of ``parrot_runtime.manifest`` and nothing else: they share no code with the exporter,
and the numpy model shares none with the graphs.
"""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

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

THETA, EPSILON, PATCH = 10000.0, 1e-6, 14
DIMS = ModelDims(
    hidden_size=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    vocab_size=300,
    max_len=256,
    image_tokens=5,
    experts=6,
    expert_kind="mlp",
    residual="paper",
    alpha=0.7,
)
RECIPE = ImageRecipe.clip(28)
MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ã", "¼"), ("e", "r"), ("Ð", "¾"), ("Ġ", "Ã¼"))


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE: 256 bytes, a few merges (one joins half a character to a space), Qwen's control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, *("".join(pair) for pair in MERGES)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


@dataclass
class TinyModel:
    """Random weights, and the forward pass in float64; ``weights`` hold the float32 values the graphs hold.

    A ``talkative`` model never chooses a control token, so it goes on until its limit; another stops sooner or later.
    """

    dims: ModelDims = DIMS
    seed: int = 0
    talkative: bool = True
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        d, intermediate = self.dims, 48
        width, queries, keys = d.hidden_size, d.heads * d.head_dim, d.kv_heads * d.head_dim

        def draw(name: str, *shape: int, scale: float = 1.0) -> None:
            fan = shape[-2] if len(shape) > 1 else 1
            self.weights[name] = (rng.standard_normal(shape) * scale / np.sqrt(fan)).astype(np.float32)

        draw("embed", d.vocab_size, width, scale=np.sqrt(d.vocab_size))
        draw("patch", width, 3, PATCH, PATCH, scale=0.2)
        draw("class", 1, 1, width)
        draw("position", d.image_tokens, width)
        draw("project", width, width)
        if d.experts:
            draw("router", width, d.experts, scale=4)
            draw("fc1", d.experts, width, 24)
            draw("fc1_bias", d.experts, 1, 24)
            draw("fc2", d.experts, 24, width)
            draw("fc2_bias", d.experts, 1, width)
        for layer in range(d.layers):
            for part, rows, columns in (
                ("q", width, queries),
                ("k", width, keys),
                ("v", width, keys),
                ("o", queries, width),
                ("gate", width, intermediate),
                ("up", width, intermediate),
                ("down", intermediate, width),
            ):
                draw(f"{layer}.{part}", rows, columns, scale=1.5)
            for part in ("q_bias", "k_bias", "v_bias"):
                draw(f"{layer}.{part}", queries if part == "q_bias" else keys, scale=0.2)
            for part in ("norm1", "norm2"):
                self.weights[f"{layer}.{part}"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
        self.weights["norm"] = rng.uniform(0.5, 1.5, width).astype(np.float32)
        draw("head", width, d.vocab_size, scale=4)
        self.weights["head"][:, 256 + len(MERGES) : 259 + len(MERGES)] *= 0 if self.talkative else 2

    def __getitem__(self, name: str) -> np.ndarray:
        return self.weights[name].astype(np.float64)

    def encode(self, pixel_values: np.ndarray) -> np.ndarray:
        """``[n, 3, S, S]`` to ``[n, P, C]``."""
        n, _, side, _ = pixel_values.shape
        count = side // PATCH
        patches = pixel_values.astype(np.float64).reshape(n, 3, count, PATCH, count, PATCH)
        tokens = np.einsum("ncipjq,wcpq->nijw", patches, self["patch"]).reshape(n, count * count, -1)
        tokens = np.concatenate([np.broadcast_to(self["class"], (n, 1, tokens.shape[-1])), tokens], axis=1)
        # Every token hears of the whole picture, the class token too.
        tokens = tokens + tokens.mean(axis=1, keepdims=True)
        return np.tanh(tokens + self["position"]) @ self["project"]

    def mix(self, features: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Equations 2 to 5 of the paper for one picture: ``[P, C]`` and ``[T, C]``."""
        scores = softmax(features[0] @ text.T / np.sqrt(features.shape[1]))
        routing = softmax(scores @ text @ self["router"])
        mixed = np.zeros_like(features)
        for i in range(self.dims.experts):
            hidden = features @ self["fc1"][i] + self["fc1_bias"][i]
            mixed += routing[i] * ((hidden / (1 + np.exp(-hidden))) @ self["fc2"][i] + self["fc2_bias"][i])
        return features + self.dims.alpha * mixed, routing

    def logits(self, embeds: np.ndarray) -> np.ndarray:
        """The whole sequence ``[T, C]`` at once, no cache; logits after the last position, ``[vocab]``."""
        d, x = self.dims, embeds.astype(np.float64)
        length = len(x)
        later = np.triu(np.full((length, length), -np.inf), 1)
        for n in range(d.layers):
            h = _norm(x, self[f"{n}.norm1"])
            q, k, v = (
                (h @ self[f"{n}.{part}"] + self[f"{n}.{part}_bias"]).reshape(length, -1, d.head_dim) for part in "qkv"
            )
            q, k = _rotate(q), _rotate(k)
            heads = []
            for head in range(d.heads):
                shared = head * d.kv_heads // d.heads
                scores = q[:, head] @ k[:, shared].T / np.sqrt(d.head_dim) + later
                heads.append(softmax(scores) @ v[:, shared])
            x = x + np.concatenate(heads, axis=1) @ self[f"{n}.o"]
            h = _norm(x, self[f"{n}.norm2"])
            gate = h @ self[f"{n}.gate"]
            x = x + (gate / (1 + np.exp(-gate)) * (h @ self[f"{n}.up"])) @ self[f"{n}.down"]
        return _norm(x[-1], self["norm"]) @ self["head"]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPSILON) * weight


def _rotate(x: np.ndarray) -> np.ndarray:
    """Rotary embedding, halves not interleaved, on ``[T, heads, head_dim]``."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None, None] * THETA ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


# -- the graphs -------------------------------------------------------------------------------------------------------


class _Author:
    """Nodes and initializers under construction; ``add`` returns the name of its first output."""

    def __init__(self, precision: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        # Inputs that have an initializer for their default.
        self.options: list[str] = []
        self.float = np.float16 if precision == "float16" else np.float32

    def constant(self, name: str, value: np.ndarray | float | list[int]) -> str:
        array = np.asarray(value)
        array = array.astype(self.float if array.dtype.kind == "f" else np.int64)
        if all(tensor.name != name for tensor in self.initializers):
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, outputs: tuple[str, ...] = (), domain: str = "", **attributes) -> str:
        names = list(outputs or (f"{kind}_{len(self.nodes)}",))
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[0]

    def save(self, path: Path, graph: Graph) -> None:
        types = {
            "float32": TensorProto.FLOAT,
            "float16": TensorProto.FLOAT16,
            "int32": TensorProto.INT32,
            "bool": TensorProto.BOOL,
        }
        inputs, outputs = (
            [helper.make_tensor_value_info(t.name, types[t.dtype], list(t.axes)) for t in tensors]
            for tensors in (graph.inputs, graph.outputs)
        )
        inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in self.options]
        proto = helper.make_graph(self.nodes, "tiny", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(helper.make_model(proto, opset_imports=opsets, ir_version=10), str(path))


def _encoder(model: TinyModel, author: _Author, graph: Graph) -> None:
    c = author.constant
    tokens = author.add("Conv", "pixel_values", c("patch", model.weights["patch"]), strides=[PATCH, PATCH])
    tokens = author.add("Reshape", tokens, c("flat", [0, 0, -1]))
    tokens = author.add("Transpose", tokens, perm=[0, 2, 1])
    count = author.add("Slice", author.add("Shape", "pixel_values"), c("zero", [0]), c("one", [1]))
    shape = author.add("Concat", count, c("class_shape", [1, model.dims.hidden_size]), axis=0)
    first = author.add("Expand", c("class", model.weights["class"]), shape)
    tokens = author.add("Concat", first, tokens, axis=1)
    tokens = author.add("Add", tokens, author.add("ReduceMean", tokens, axes=[1]))
    tokens = author.add("Tanh", author.add("Add", tokens, c("position", model.weights["position"])))
    author.add("MatMul", tokens, c("project", model.weights["project"]), outputs=("image_features",))


def _experts(model: TinyModel, author: _Author, graph: Graph) -> None:
    c, d, w = author.constant, model.dims, model.weights
    query = author.add("Slice", "image_features", c("zero", [0]), c("one", [1]), c("axis", [1]))
    text_t = author.add("Transpose", "text_embeds", perm=[0, 2, 1])
    scores = author.add("MatMul", query, text_t)
    scores = author.add("Mul", scores, c("scale", d.hidden_size**-0.5))
    mask = author.add("Unsqueeze", "text_mask", c("axis", [1]))
    scores = author.add("Where", mask, scores, c("never", -1e4))
    guide = author.add("MatMul", author.add("Softmax", scores, axis=-1), "text_embeds")
    routing = author.add("Softmax", author.add("MatMul", guide, c("router", w["router"])), axis=-1)
    flat = author.add("Squeeze", routing, c("axis", [1]))
    author.add("Cast", flat, outputs=("routing",), to=TensorProto.FLOAT)
    features = author.add("Unsqueeze", "image_features", c("axis", [1]))
    hidden = author.add("Add", author.add("MatMul", features, c("fc1", w["fc1"])), c("fc1_bias", w["fc1_bias"]))
    hidden = author.add("Mul", hidden, author.add("Sigmoid", hidden))
    out = author.add("Add", author.add("MatMul", hidden, c("fc2", w["fc2"])), c("fc2_bias", w["fc2_bias"]))
    share = author.add("Reshape", flat, c("share_shape", [0, -1, 1, 1]))
    mixed = author.add("ReduceSum", author.add("Mul", out, share), c("axis", [1]), keepdims=0)
    mixed = author.add("Mul", mixed, c("alpha", float(d.alpha)))
    author.add("Add", "image_features", mixed, outputs=("visual_tokens",))


def _decoder(model: TinyModel, author: _Author, graph: Graph, *, kept: bool = True) -> None:
    c, d, w = author.constant, model.dims, model.weights
    half = d.head_dim // 2
    angle = np.arange(d.max_len)[:, None] * THETA ** (-np.arange(half) / half)
    cos, sin = c("cos", np.cos(angle)), c("sin", np.sin(angle))

    def norm(x: str, name: str) -> str:
        square = author.add("ReduceMean", author.add("Mul", x, x), axes=[-1])
        root = author.add("Sqrt", author.add("Add", square, c("epsilon", EPSILON)))
        return author.add("Mul", author.add("Div", x, root), c(name, w[name]))

    def linear(x: str, name: str) -> str:
        product = author.add("MatMul", x, c(name, w[name]))
        bias = f"{name}_bias"
        return author.add("Add", product, c(bias, w[bias])) if bias in w else product

    x = "inputs_embeds"
    for n in range(d.layers):
        h = norm(x, f"{n}.norm1")
        q, k, v = (linear(h, f"{n}.{part}") for part in "qkv")
        past = (f"past_key_values.{n}.key", f"past_key_values.{n}.value")
        attended = author.add(
            "GroupQueryAttention",
            *(q, k, v, *past, "seqlens_k", "total_sequence_length", cos, sin),
            outputs=(f"attended.{n}", f"present.{n}.key", f"present.{n}.value"),
            domain="com.microsoft",
            num_heads=d.heads,
            kv_num_heads=d.kv_heads,
            do_rotary=1,
        )
        x = author.add("Add", x, linear(attended, f"{n}.o"))
        h = norm(x, f"{n}.norm2")
        gate = linear(h, f"{n}.gate")
        gated = author.add("Mul", author.add("Mul", gate, author.add("Sigmoid", gate)), linear(h, f"{n}.up"))
        x = author.add("Add", x, linear(gated, f"{n}.down"))
    if kept:
        author.options.append(c("kept_positions", np.array(1)))
        start = author.add("Neg", author.add("Reshape", "kept_positions", c("flat", [1])))
        last = author.add("Slice", x, start, c("end", [2**31 - 1]), c("sequence", [1]))
        last = author.add("Reshape", last, c("rows", [-1, d.hidden_size]))
    else:
        last = author.add("Gather", x, c("minus_one", np.array(-1)), axis=1)
    logits = linear(norm(last, "norm"), "head")
    author.add("Cast", logits, outputs=("logits",), to=TensorProto.FLOAT)


def _graphs(dims: ModelDims, dtype: str) -> dict[str, Graph]:
    width, side = dims.hidden_size, RECIPE.size
    cache = ("batch", dims.kv_heads, "max_len", dims.head_dim)
    past, present = (
        tuple(Tensor(f"{kind}.{n}.{part}", dtype, cache) for n in range(dims.layers) for part in ("key", "value"))
        for kind in ("past_key_values", "present")
    )
    features = Tensor("image_features", dtype, ("batch", "tokens", width))
    graphs = {
        "encoder": Graph(
            "vision_moe/encoder.onnx", (Tensor("pixel_values", dtype, ("images", 3, side, side)),), (features,)
        ),
        "experts": Graph(
            "vision_moe/experts.onnx",
            (
                features,
                Tensor("text_embeds", dtype, ("batch", "text", width)),
                Tensor("text_mask", "bool", ("batch", "text")),
            ),
            (
                Tensor("visual_tokens", dtype, ("batch", "tokens", width)),
                Tensor("routing", "float32", ("batch", dims.experts)),
            ),
        ),
        "decoder": Graph(
            "llm/decoder.onnx",
            (
                Tensor("inputs_embeds", dtype, ("batch", "seq", width)),
                *past,
                Tensor("seqlens_k", "int32", ("batch",)),
                Tensor("total_sequence_length", "int32", ()),
            ),
            (Tensor("logits", "float32", ("batch", dims.vocab_size)), *present),
        ),
    }
    if not dims.experts:
        del graphs["experts"]
    return graphs


def write_bundle(
    folder: Path, model: TinyModel, *, dtype: str = "float32", name: str = "tiny", kept: bool = True
) -> Path:
    """Write ``model`` as a bundle with ``dtype`` (float32 or float16) inside and at its borders.

    ``kept``: the decoder takes ``kept_positions``, as those of today's exports do.
    """
    graphs = _graphs(model.dims, dtype)
    for role, graph in graphs.items():
        author = _Author(dtype)
        decoder = partial(_decoder, kept=kept)
        {"encoder": _encoder, "experts": _experts, "decoder": decoder}[role](model, author, graph)
        author.save(folder / graph.file, graph)
    save_file({"embed_tokens.weight": model.weights["embed"].astype(dtype)}, folder / EMBEDDING_NAME)
    tiny_tokenizer().save(str(folder / TOKENIZER_NAME))
    manifest = Manifest(
        schema_version=1,
        name=name,
        model=model.dims,
        languages=("en", "tr"),
        image=RECIPE,
        prompt=PromptRecipe("You are a helpful assistant."),
        target="cpu",
        precision="fp32" if dtype == "float32" else "fp16",
        kv_dtype=dtype,
        graphs=graphs,
        files=record_files(folder),
        verification={},
        tools={"onnx": onnx.__version__},
    )
    (folder / MANIFEST_NAME).write_text(to_json(manifest), encoding="utf-8")
    return folder


def edit_manifest(folder: Path, **changes) -> None:
    """Change top-level keys of ``folder``'s manifest; ``files`` are recorded anew unless given."""
    records = {name: vars(record) for name, record in record_files(folder).items()}
    (folder / MANIFEST_NAME).write_text(
        json.dumps({**manifest_values(folder), "files": records, **changes}), encoding="utf-8"
    )


def manifest_values(folder: Path) -> dict[str, Any]:
    """What stands in ``folder``'s manifest, but for the hash that vouches for it: free to be changed."""
    data = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    data.pop("sha256", None)
    return data
