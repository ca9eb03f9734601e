"""What an export says of itself in the bundle's manifest: the model, the graphs, and the tools that made them."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from parrot_export.checkpoint import CONFIG_NAME, Checkpoint
from parrot_export.choice import Choice
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import SCHEMA_VERSION, FileRecord, Graph, Manifest, ModelDims
from parrot_train.data.records import UNDETERMINED
from parrot_train.shards import AGAIN

_TOOLS = ("parrot-edge", "onnx", "onnx-ir", "onnxruntime", "torch", "transformers", "numpy", "safetensors")


def model_dims(checkpoint: Checkpoint, max_len: int) -> ModelDims:
    """What the runtime must know of the model, for sequences of up to ``max_len`` positions.

    Raises InputError for a configuration of which no such model can be made.
    """
    model = checkpoint.architecture
    decoder, experts = model.decoder, model.experts
    try:
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
    except ValueError as error:
        raise InputError(f"{checkpoint.folder / CONFIG_NAME}: {error}; {AGAIN}") from error


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
        languages=_languages(checkpoint.recipe.training),
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
        units=dict(choice.first.units),
    )


def _languages(training: Mapping[str, Any]) -> tuple[str, ...]:
    """The six, and those that the model was extended by."""
    origin, counts = training.get("from"), training.get("languages")
    if not (isinstance(origin, Mapping) and isinstance(counts, Mapping) and isinstance(origin.get("languages"), list)):
        return CODES
    return (*CODES, *sorted({*map(str, origin["languages"]), *counts} - {*CODES, UNDETERMINED}))


def _tool_versions() -> dict[str, str]:
    """Versions of what made the bundle, of the tools that are installed."""
    versions = {}
    for tool in _TOOLS:
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
