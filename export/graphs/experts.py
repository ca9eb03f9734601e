"""The text-guided mixture's graph: image features and the question to visual tokens (paper, Eq. 2-5).

``image_features [batch, P, C]``, ``text_embeds [batch, text, C]``, ``text_mask [batch, text]`` bool →
``visual_tokens [batch, P, C]``, ``routing [batch, E]`` float32. Every expert is computed, as two wide products over
all of them: the routing weighs the experts' hidden units, and the second product sums over units and experts.
"""

import math

import onnx_ir as ir

from parrot_export.architecture import MOE, Architecture, Experts
from parrot_export.dialects.base import Dialect

ROOT = "/vision_moe/experts"
_ACTIVATION = "silu"


def write_experts(ops: Dialect, model: Architecture) -> None:
    """Router, experts and residual of a model that has them."""
    experts, tokens, width = model.experts, model.vision.tokens, model.decoder.width
    features = ops.input("image_features", ("batch", tokens, width))
    text = ops.input("text_embeds", ("batch", "text", width))
    mask = ops.input("text_mask", ("batch", "text"), "bool")
    with ops.scope("router"):
        query = ops.row(features, 0) if model.vision.class_token_kept else ops.mean_row(features)
        routing = _route(ops, query, text, mask, width)
    with ops.scope("experts"):
        rows = ops.reshape(features, -1, width)
        hidden = _hidden(ops, rows, experts)
        mixed = ops.reshape(_mix(ops, hidden, routing, experts, tokens), -1, tokens, width)
        if experts.kind == "mlp":
            mixed = ops.add(mixed, _mean_bias(ops, routing, experts, width))
    with ops.scope("residual"):
        if experts.residual == "paper":
            visual = ops.add(features, ops.scale(mixed, experts.alpha))
        else:
            visual = ops.add(mixed, ops.scale(features, experts.alpha))
    ops.output("visual_tokens", visual, ("batch", tokens, width))
    ops.output("routing", routing, ("batch", experts.count), "float32")


def _route(ops: Dialect, query: ir.Value, text: ir.Value, mask: ir.Value, width: int) -> ir.Value:
    """h = softmax(query · Tᵀ / √C) · T and P = softmax(W_r h): float32 ``[batch, E]``.

    The query is the class token, or the mean of the patches in a model without: ``[batch, 1, C]``.
    Without any text h is zero and the routing uniform, as in the model.
    """
    scores = ops.matmul(query, ops.transpose(text, 0, 2, 1))
    scores = ops.scale(ops.cast(scores, ir.DataType.FLOAT), 1 / math.sqrt(width))
    attention = ops.masked_softmax(scores, ops.op("Unsqueeze", [mask, ops.integers(1)]))
    guide = ops.matmul(ops.cast(attention, text.dtype), text)
    return ops.softmax(ops.linear(ops.reshape(guide, -1, width), f"{MOE}.router", bias=False))


def _hidden(ops: Dialect, rows: ir.Value, experts: Experts) -> ir.Value:
    """The hidden units of all experts: rows ``[batch · P, E · I]``."""
    if experts.kind == "mlp":
        with ops.scope("fc1"):
            return ops.activation(ops.linear(rows, f"{MOE}.experts.fc1"), _ACTIVATION)
    with ops.scope("gate_proj"):
        gate = ops.activation(ops.linear(rows, f"{MOE}.experts.gate_proj", bias=False), _ACTIVATION)
    with ops.scope("up_proj"):
        return ops.multiply(gate, ops.linear(rows, f"{MOE}.experts.up_proj", bias=False))


def _mix(ops: Dialect, hidden: ir.Value, routing: ir.Value, experts: Experts, tokens: int) -> ir.Value:
    """Σᵢ P[i] · Wᵢ · hiddenᵢ: rows ``[batch · P, C]``."""
    weights = ops.reshape(ops.cast(routing, hidden.dtype), -1, 1, experts.count, 1)
    weighed = ops.multiply(ops.reshape(hidden, -1, tokens, experts.count, experts.inner), weights)
    with ops.scope("fc2" if experts.kind == "mlp" else "down_proj"):
        module = "fc2" if experts.kind == "mlp" else "down_proj"
        return ops.mix(ops.reshape(weighed, -1, experts.count * experts.inner), f"{MOE}.experts.{module}")


def _mean_bias(ops: Dialect, routing: ir.Value, experts: Experts, width: int) -> ir.Value:
    """Σᵢ P[i] · bᵢ: ``[batch, 1, C]``."""
    biases = ops.reshape(ops.vector(f"{MOE}.experts.fc2.bias"), experts.count, width)
    return ops.reshape(ops.matmul(ops.cast(routing, biases.dtype), biases), -1, 1, width)
