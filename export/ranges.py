"""How large the inputs of products get: a plain pass over samples, through float32 graphs on onnxruntime."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from parrot_export.author import Authored
from parrot_export.emulation import empty_cache
from parrot_export.reference import Reference
from parrot_runtime.backends.onnxruntime import import_onnxruntime
from parrot_runtime.errors import ParrotError
from parrot_runtime.manifest import Graph


def collect_ranges(
    folder: Path, authored: Authored, feeds: Mapping[str, Iterable[Mapping[str, np.ndarray]]]
) -> dict[str, float]:
    """The largest absolute value that entered each product, by the name of its (first) module.

    ``authored`` is written below ``folder``; ``feeds`` holds, per role, the inputs of each run. The graphs give out one
    number per product instead of their own outputs, so a pass takes no more memory than a run.
    Raises ParrotError for NaN or infinity.
    """
    ranges: dict[str, float] = {}
    for role, inputs in feeds.items():
        modules = authored.products[role]
        session = _session(folder / authored.graphs[role].file, set(modules.values()))
        peaks = dict.fromkeys(modules.values(), 0.0)
        for feed in inputs:
            for value, peak in zip(peaks, session.run([_peak(value) for value in peaks], dict(feed)), strict=True):
                if not np.isfinite(peak):
                    raise ParrotError(f"{role}: {value} has NaN or infinity on a sample; train again, or leave it out")
                peaks[value] = max(peaks[value], float(peak))
        ranges |= {module: peaks[value] for module, value in modules.items()}
    return ranges


def sample_ranges(folder: Path, exact: Authored, reference: Reference) -> dict[str, float]:
    """``collect_ranges`` of ``exact``, float32 graphs of the classic dialect, on the samples and torch's answers.

    The graphs and their weights are written below ``folder``.
    """
    for file in exact.files:
        file.write(folder)
    exact.save_graphs(folder)
    return collect_ranges(
        folder, exact, {role: list(_feeds(role, exact.graphs[role], reference)) for role in exact.graphs}
    )


def _feeds(role: str, graph: Graph, reference: Reference) -> Iterator[dict[str, np.ndarray]]:
    """A role's inputs for each sample: to the decoder, the prompt and the answer at once."""
    for question, expected in zip(reference.questions, reference.answers, strict=True):
        if role == "encoder":
            yield {"pixel_values": question.pixels}
        elif role == "experts":
            text = expected.text[None]
            mask = np.ones(text.shape[:2], np.bool_)
            yield {"image_features": expected.features, "text_embeds": text, "text_mask": mask}
        else:
            embeds = np.concatenate([expected.embeds, expected.words[:-1]])[None]
            ones = np.ones(embeds.shape[:2], np.int64)
            yield empty_cache(graph) | {
                "inputs_embeds": embeds,
                "attention_mask": ones,
                "position_ids": ones.cumsum(axis=1) - 1,
            }


def _peak(value: str) -> str:
    return f"{value}/peak"


def _session(path: Path, values: set[str]):
    """The graph at ``path`` with the peak of each of ``values`` as its outputs."""
    model = onnx.load(path, load_external_data=False)
    del model.graph.output[:]
    for value in sorted(values):
        sizes, peak = f"{value}/size", _peak(value)
        model.graph.node.append(onnx.helper.make_node("Abs", [value], [sizes]))
        model.graph.node.append(onnx.helper.make_node("ReduceMax", [sizes], [peak], keepdims=0))
        model.graph.output.append(onnx.helper.make_tensor_value_info(peak, onnx.TensorProto.FLOAT, []))
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
