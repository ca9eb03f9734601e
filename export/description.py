"""What an export says of itself in the bundle's manifest: the model, the graphs, and the tools that made them."""

import importlib.metadata

from parrot_export.checkpoint import Checkpoint
from parrot_export.choice import Choice
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import SCHEMA_VERSION, FileRecord, Graph, Manifest, ModelDims

_TOOLS = ("parrot-edge", "onnx", "onnx-ir", "onnxruntime", "torch", "transformers", "numpy", "safetensors")


def model_dims(checkpoint: Checkpoint, max_len: int) -> ModelDims:
    """What the runtime must know of the model, for sequences of up to ``max_len`` positions."""
    model = checkpoint.architecture
    decoder, experts = model.decoder, model.experts
    return ModelDims(
        hidden_size=decoder.width,
        layers=decoder.layers,
        heads=decoder.heads,
        kv_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        vocab_size=decoder.vocabulary,
        max_len=max_len,
        image_tokens=model.vision.tokens,
        experts=experts.count if experts else 0,
        expert_kind=experts.kind if experts else "mlp",
        residual=experts.residual if experts else "paper",
        alpha=experts.alpha if experts else 1.0,
    )


def new_manifest(
    checkpoint: Checkpoint,
    graphs: tuple[dict[str, Graph], dict[str, Graph]],
    choice: Choice,
    *,
    name: str,
    dims: ModelDims,
    files: dict[str, FileRecord],
) -> Manifest:
    """The manifest of a bundle that holds ``files``, not verified yet and without a card.

    ``graphs`` are onnxruntime's and TensorRT's, by role.
    """
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        model=dims,
        languages=CODES,
        image=checkpoint.recipe.image,
        prompt=checkpoint.recipe.prompt,
        target=choice.first.target,
        precision=choice.first.precision,
        kv_dtype=choice.first.kv_dtype,
        graphs=graphs[0],
        files=files,
        verification={"status": "skipped"},
        tools=_tool_versions(),
        tensorrt=graphs[1],
        tensorrt_dialect=choice.tensorrt.dialect if choice.tensorrt else None,
    )


def _tool_versions() -> dict[str, str]:
    """Versions of what made the bundle, of the tools that are installed."""
    versions = {}
    for tool in _TOOLS:
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
