"""The vision encoder's graph: pixels to image features, independent of the question, so computed once per picture.

``pixel_values [images, 3, S, S]`` → ``image_features [images, P, C]``, the class token first if it is kept.
"""

import onnx_ir as ir

from parrot_export.architecture import PROJECTOR, VISION, Architecture, Vision
from parrot_export.dialects.base import Dialect, Norm, SelfAttention

ROOT = "/vision_moe/encoder"


def write_encoder(ops: Dialect, model: Architecture) -> None:
    """The encoder up to the layer whose output is used, then the projector Linear - activation - Linear."""
    vision, width = model.vision, model.decoder.width
    pixels = ops.input("pixel_values", ("images", vision.channels, vision.image_size, vision.image_size))
    rows = _embed(ops, pixels, vision)
    rows = _layers(ops, rows, vision)
    if vision.class_token and not vision.class_token_kept:
        patches = ops.rows_after(ops.reshape(rows, -1, vision.positions, vision.width), 1)
        rows = ops.reshape(patches, -1, vision.width)
    with ops.scope("projector"), ops.unit("projector"):
        with ops.scope("linear_1"):
            rows = ops.linear(rows, f"{PROJECTOR}.linear_1")
        rows = ops.activation(rows, model.projector_activation)
        with ops.scope("linear_2"):
            rows = ops.linear(rows, f"{PROJECTOR}.linear_2")
    features = ops.reshape(rows, -1, vision.tokens, width)
    ops.output("image_features", features, ("images", vision.tokens, width))


def _embed(ops: Dialect, pixels: ir.Value, vision: Vision) -> ir.Value:
    """Patches and class token with their positions, normalised: rows ``[images · positions, width]``."""
    with ops.scope("embeddings"):
        module, size = f"{VISION}.embeddings.patch_embedding", vision.patch_size
        rows, name = ops.patches(pixels, module, size, bias=vision.patch_bias), "vision.positions"
        table = ops.load(f"{VISION}.embeddings.position_embedding.weight")
        if vision.class_token:
            # It is the same for every picture, so it enters through the table of positions, onto a zero row.
            table[0] += ops.load(f"{VISION}.embeddings.class_embedding")
            rows, name = ops.rows_before(rows, 1), "vision.positions_and_class_token"
        rows = ops.reshape(ops.add(rows, ops.table(name, table)), -1, vision.width)
        return ops.layer_norm(rows, Norm(f"{VISION}.pre_layrnorm", vision.epsilon)) if vision.pre_norm else rows


def _layers(ops: Dialect, rows: ir.Value, vision: Vision) -> ir.Value:
    """The pre-norm layers; the sum that ends one layer is taken together with the norm that begins the next."""
    normed = None
    for number in range(vision.layers_used):
        name = f"{VISION}.encoder.layers.{number}"
        with ops.scope(f"layers.{number}"):
            if number == 0:
                normed = ops.layer_norm(rows, Norm(f"{name}.layer_norm1", vision.epsilon))
            with ops.scope("attn"), ops.unit(f"layers.{number}.attn"):
                parts = (f"{name}.self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj"))
                mixed = ops.attention(normed, SelfAttention(*parts, vision.heads, vision.width), vision.positions)
                with ops.scope("out_proj"):
                    update = ops.linear(mixed, f"{name}.self_attn.out_proj")
            rows, normed = ops.layer_norm_sum(rows, update, Norm(f"{name}.layer_norm2", vision.epsilon))
            with ops.unit(f"layers.{number}.mlp"):
                update = _mlp(ops, normed, name, vision.activation)
            if number + 1 == vision.layers_used:
                rows = ops.add(rows, update)
            else:
                following = Norm(f"{VISION}.encoder.layers.{number + 1}.layer_norm1", vision.epsilon)
                rows, normed = ops.layer_norm_sum(rows, update, following)
    return rows


def _mlp(ops: Dialect, rows: ir.Value, name: str, activation: str) -> ir.Value:
    with ops.scope("mlp"):
        with ops.scope("fc1"):
            rows = ops.linear(rows, f"{name}.mlp.fc1")
        rows = ops.activation(rows, activation)
        with ops.scope("fc2"):
            return ops.linear(rows, f"{name}.mlp.fc2")
