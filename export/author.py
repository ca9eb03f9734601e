"""All graphs of a model, written in one dialect, with the weight files they read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir

from parrot_export.architecture import EMBEDDING
from parrot_export.checkpoint import Checkpoint
from parrot_export.dialects.base import Dialect
from parrot_export.dialects.ort import OrtDialect
from parrot_export.dialects.tensorrt_classic import ClassicDialect
from parrot_export.dialects.tensorrt_modern import ModernDialect
from parrot_export.graphs import decoder, encoder, experts
from parrot_export.plan import Plan
from parrot_export.scales import Scales
from parrot_export.weights import LinkedFile, Links, Shelf, WeightFile
from parrot_export.words import word_table
from parrot_runtime.manifest import EMBEDDING_NAME, PREFILL, Graph

DIALECTS: dict[str, type[Dialect]] = {
    "ort": OrtDialect,
    "tensorrt-modern": ModernDialect,
    "tensorrt-classic": ClassicDialect,
}


@dataclass(frozen=True)
class Authored:
    """Graphs that are ready to be saved: per role the model and its manifest entry; and the files of their weights.

    ``products`` are, per role, the values that enter matrix products, by the names of the modules. ``links`` are files
    of the checkpoint that the graphs read, and those of graphs authored before with the same ``Links``.
    """

    models: dict[str, ir.Model]
    graphs: dict[str, Graph]
    files: tuple[WeightFile, ...]
    products: dict[str, dict[str, str]]
    links: tuple[LinkedFile, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of weights to write."""
        return sum(file.size for file in self.files)

    def save_graphs(self, folder: Path) -> None:
        """Write the ``.onnx`` files below ``folder``; the numbers are the weight files' business."""
        for role, model in self.models.items():
            ir.save(model, folder / self.graphs[role].file)


def author(
    checkpoint: Checkpoint,
    plan: Plan,
    max_len: int,
    *,
    beside: Authored | None = None,
    ranges: Mapping[str, float] | None = None,
    links: Links | None = None,
    scales: Scales | None = None,
    dialect: type[Dialect] | None = None,
) -> Authored:
    """Write every graph of the checkpoint's model. No weights are read but a few small tables.

    The graphs stand at the top of the bundle and their data below them: onnxruntime and onnx's checker refuse external
    data that is reached through ``..``. The word embeddings have a file of their own, which the runtime looks rows up
    in and a tied output layer reads as well.

    With ``beside``, graphs of the same checkpoint in another dialect, the new ones go by names that carry their
    dialect, read its files where a tensor stands there as they want it, and bring files for the rest alone.

    ``ranges`` says how large the inputs of products get (see ``parrot_export.ranges``); a plan that quantises
    activations needs it. With ``links``, weights that stand in the checkpoint as a graph wants them are read from its
    files, which the bundle links; the word embeddings keep a file of their own. ``scales`` brings codes
    of 4 bits in the place of rounding to nearest. ``dialect`` writes the graphs instead of the plan's own. Raises
    InputError for ranges that lack
    one of the products.
    """
    model, suffix = checkpoint.architecture, f".{plan.dialect}" if beside else ""
    earlier = beside.files if beside else ()
    embedding = WeightFile(EMBEDDING_NAME)
    table = word_table(checkpoint.tensors[f"{EMBEDDING}.weight"], plan.embedding)
    holder = next((file for file in earlier if file.holds(table)), None if beside else embedding)
    elsewhere = {}
    if holder:
        places = [holder.place([block]) for block in table]
        # The output layer finds codes of 8 bits by the blocks' own names.
        elsewhere = {f"{EMBEDDING}.weight": places[0]} if plan.embedding != "int8" else {}
    writers = {"encoder": (encoder.ROOT, encoder.write_encoder)}
    if model.experts:
        writers["experts"] = experts.ROOT, experts.write_experts
    writers["decoder"] = decoder.ROOT, partial(decoder.write_decoder, max_len=max_len)
    if PREFILL in plan.components:
        writers[PREFILL] = decoder.PREFILL_ROOT, partial(decoder.write_prefill, max_len=max_len)
    dialects, files = {}, [embedding]
    for role, (root, write) in writers.items():
        weights = WeightFile(f"weights/{role}{suffix}.safetensors")
        shelf = Shelf(weights, (*earlier, *files), links)
        dialects[role] = (dialect or DIALECTS[plan.dialect])(
            root, plan, role, checkpoint, shelf, elsewhere, ranges, scales
        )
        write(dialects[role], model)
        files.append(weights)
    files = [file for file in files if file.size]
    for file in files:
        file.seal()
    models = {role: dialect.finish() for role, dialect in dialects.items()}
    graphs = {role: dialect.describe(f"{role}{suffix}.onnx") for role, dialect in dialects.items()}
    products = {
        role: {module: value.name for module, value in dialect.products.items()} for role, dialect in dialects.items()
    }
    return Authored(models, graphs, tuple(files), products, tuple(links.files.values()) if links else ())
