"""Whether a rounded bundle keeps every language: what is asked, the search for a mixture of types, the gate."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_export.checkpoint import Checkpoint
from parrot_export.progress import Progress
from parrot_export.request import ExportRequest
from parrot_export.scales import Scales
from parrot_runtime.integrity import record_file
from parrot_runtime.manifest import FileRecord, Manifest, ModelDims

if TYPE_CHECKING:
    from parrot_export.conversations import Conversation
    from parrot_export.gate import Budget
    from parrot_export.mixed.auto import Found
    from parrot_export.samples import Asking


def kept_costs(output: Path) -> Path:
    """Where a search keeps what it measured, should it be cut or find nothing."""
    return output.parent / f".{output.name}.auto"


def asking_for(
    request: ExportRequest, checkpoint: Checkpoint, scales: Scales | None, longest: int, note: Callable[[str], None]
) -> "Asking":
    """Whose questions the gate and a search put, without those that were calibrated on."""
    from parrot_export.conversations import place
    from parrot_export.samples import Asking

    asking = Asking(checkpoint, request.gate_data, longest, note)
    if scales is None:
        return asking
    return replace(asking, languages=scales.record.languages, seen=frozenset(map(place, scales.record.samples)))


def questions_for(request: ExportRequest, asking: "Asking") -> list["Conversation"]:
    """What the gate will ask, known before anything is computed; nothing where there is none."""
    if not request.gated:
        return []
    from parrot_export.gate import SAMPLES, too_few
    from parrot_export.samples import gate_questions

    questions = gate_questions(asking, request.gate_samples or SAMPLES)
    for line in too_few(questions, request.budget):
        asking.note(line)
    return questions


def search(
    request: ExportRequest,
    scales: Scales | None,
    asking: "Asking",
    dims: ModelDims,
    places: tuple[str, Path, Path],
    progress: Progress,
) -> "Found":
    """The mixed plan within the budget. ``places``: the bundle's name, its path, its folder while it is written.

    Raises OverBudget where there is none.
    """
    from parrot_export.mixed.auto import AutoSearch
    from parrot_export.mixed.sensitivity import SAMPLES
    from parrot_export.samples import search_questions

    name, output, folder = places
    searched = search_questions(asking, request.search_samples or SAMPLES)
    seen = asking.seen | {one.place for one in searched}
    return AutoSearch(
        checkpoint=asking.checkpoint,
        scales=scales,
        dims=dims,
        name=name,
        budget=request.budget,
        questions=questions_for(request, replace(asking, seen=seen)),
        searched=searched,
        scratch=folder,
        cache=kept_costs(output),
        embedding_bits=request.embedding_bits,
        head_bits=request.lm_head_bits,
        progress=progress,
        note=asking.note,
    ).run()


def judge(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    questions: list["Conversation"],
    budget: "Budget",
    progress: Progress,
) -> dict[str, Any]:
    """What rounding costs each language; see ``parrot_export.gate``."""
    from parrot_export.float32 import Float32
    from parrot_export.gate import measure_gate

    with progress("Measuring every language", len(questions)) as advance:
        return measure_gate(folder, manifest, Float32(checkpoint.load_model()), questions, budget, advance)


def write_frontier(folder: Path, found: "Found | None", note: Callable[[str], None]) -> dict[str, FileRecord]:
    """The frontier as data and as a plot, below ``folder``; their records."""
    if found is None:
        return {}
    from parrot_export.mixed.frontier import FRONTIER_JSON, FRONTIER_PLOT, plot

    text = json.dumps(found.frontier, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    (folder / FRONTIER_JSON).write_text(text, encoding="utf-8")
    names = [FRONTIER_JSON]
    if plot(found.frontier, folder / FRONTIER_PLOT):
        names.append(FRONTIER_PLOT)
    else:
        note(f"matplotlib is not installed, so there is no {FRONTIER_PLOT}; `pip install 'parrot-edge[plots]'`")
    return {name: record_file(folder / name) for name in names}
