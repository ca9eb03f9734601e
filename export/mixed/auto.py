"""``parrot-export --auto``: the mixed plan with the fewest bytes whose every language stays within the budget.

Sensitivities first (``sensitivity``), then the frontier they predict (``search``), then the truth: the first step that
is predicted to be within the limit of the divergence is exported and put through the gate, as any bundle is. Where that
refuses, steps with more bytes are tried, halving what lies between those refused and those let through.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_export.author import author
from parrot_export.calibrated import Calibrated, calibrated_units
from parrot_export.checkpoint import Checkpoint
from parrot_export.choice import Choice
from parrot_export.description import new_manifest
from parrot_export.float32 import Float32
from parrot_export.gate import Budget, Cost, OverBudget, measure_gate, over_budget
from parrot_export.hashing import Hashes
from parrot_export.mixed.frontier import Measured, as_data, table
from parrot_export.mixed.search import Sizes, Step, frontier, ladders, make_step
from parrot_export.mixed.sensitivity import Sensitivity
from parrot_export.mixed.units import Unit, fits, model_units
from parrot_export.parts import author_parts, write_parts
from parrot_export.plan import Plan, mixed_plan
from parrot_export.progress import Progress, no_progress
from parrot_export.scales import Scales
from parrot_runtime.integrity import record_files
from parrot_runtime.manifest import FileRecord, ModelDims

if TYPE_CHECKING:
    from parrot_export.conversations import Conversation
    from parrot_train.model import ParrotForConditionalGeneration

# Exports between the first plan and the finest that are tried at most.
_TRIES = 5
_ANYTHING = Budget(float("inf"), float("inf"))


@dataclass(frozen=True)
class Trial:
    """An exported plan: its choice, its files' hashes, what the gate found, and what of it is over the budget."""

    choice: Choice
    calibrated: Calibrated
    files: dict[str, FileRecord]
    gate: dict[str, Any]
    costs: dict[str, Cost]
    faults: list[str]


@dataclass(frozen=True)
class Found:
    """The plan within the budget, as it was tried, and the frontier it lies on."""

    plan: Trial
    frontier: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AutoSearch:
    """One search for a plan of ``checkpoint``, with ``scales`` of a calibration or without.

    ``questions`` are the gate's, sensitivities are found on those ``searched``. Trials are written
    below ``scratch`` one at a time and taken away again; ``cache`` is the file of the sensitivities, which outlives a
    search that was cut or found nothing.
    """

    checkpoint: Checkpoint
    scales: Scales | None
    dims: ModelDims
    name: str
    budget: Budget
    questions: Sequence["Conversation"]
    searched: Sequence["Conversation"]
    scratch: Path
    cache: Path
    embedding_bits: int | None = None
    head_bits: int | None = None
    progress: Progress = no_progress
    note: Callable[[str], None] = lambda _line: None

    def run(self) -> Found:
        """The plan. Raises OverBudget, with the frontier's table, where none is within the budget."""
        units = model_units(self.checkpoint.architecture, self.embedding_bits, self.head_bits)
        sizes, fixed = self._sizes(units)
        ladder = ladders(units, sizes)
        units = [replace(unit, choices=ladder[unit.name]) for unit in units]
        sensitivity = Sensitivity(self.checkpoint, self.scales, self.dims, self.cache, self.searched)
        missing = sensitivity.missing(units)
        with self.progress("Measuring every unit", len(missing)) as advance:
            costs = sensitivity.measure(self._model, units, advance)
        steps = frontier(ladder, costs, sizes, fixed)
        search = _Trials(self, units, steps)
        chosen = search.choose()
        eight = {name: "int8" if "int8" in each else each[0] for name, each in ladder.items()}
        landmarks = {"fewest bytes": steps[0], "all int8": make_step(eight, costs, sizes, fixed), "float16": steps[-1]}
        for step in landmarks.values():
            search.trial(step)
        data = as_data(steps, search.measured(landmarks, chosen), costs)
        if chosen is None:
            last = search.trial(steps[-1])
            lines = "\n".join(table(data))
            raise OverBudget(
                f"no plan is within the budget, float16 everywhere neither: {'; '.join(last.faults)}; nothing was "
                f"published: allow more with --max-drop and --max-kl, or ask more with --gate-samples\n{lines}"
            )
        trial = search.trial(chosen)
        return Found(trial, data)

    @cached_property
    def _model(self) -> "ParrotForConditionalGeneration":
        return self.checkpoint.load_model()

    @cached_property
    def _float32(self) -> Float32:
        """Of which every trial is asked the same."""
        return Float32(self._model)

    def plan(self, stored: Mapping[str, str]) -> Plan:
        """The plan that stores units so."""
        return mixed_plan(stored, tied=self.checkpoint.architecture.decoder.tied)

    def _sizes(self, units: Sequence[Unit]) -> tuple[Sizes, int]:
        """Bytes of weights that each choice takes more than float16, as authored, and those of float16 everywhere."""

        def size(changed: Mapping[str, str]) -> int:
            stored = {unit.name: "float16" for unit in units} | changed
            return author(self.checkpoint, self.plan(stored), self.dims.max_len, scales=self.scales).size

        plain = size({})
        return {u.name: {each: size({u.name: each}) - plain for each in u.choices} for u in units}, plain

    def export(self, units: list[Unit], step: Step) -> Trial:
        """Export a plan below ``scratch``, measure it, and take it away again."""
        choice = Choice(self.plan(step.stored))
        calibrated = Calibrated(self.checkpoint, None)
        if self.scales:
            calibrated = calibrated_units(self.scales, self.checkpoint, fits(units, step.stored))
        with tempfile.TemporaryDirectory(dir=self.scratch) as place, Hashes() as hashes:
            folder = Path(place)
            parts = author_parts(calibrated, choice, self.dims.max_len, None)
            write_parts(parts, self.checkpoint, folder, hashes, no_progress)
            files = record_files(folder, hashes.record)
            manifest = new_manifest(self.checkpoint, parts.graphs, choice, name=self.name, dims=self.dims, files=files)
            with self.progress(f"Asking {step.size / 2**20:.1f} MiB", len(self.questions)) as advance:
                gate = measure_gate(folder, manifest, self._float32, self.questions, _ANYTHING, advance)
        gate |= {"budget": asdict(self.budget)}
        costs = {code: Cost(**cost) for code, cost in gate["cpu"]["languages"].items()}
        return Trial(choice, calibrated, files, gate, costs, over_budget(costs, self.budget))


class _Trials:
    """The plans of a search that were exported, each once."""

    def __init__(self, search: AutoSearch, units: list[Unit], steps: Sequence[Step]) -> None:
        self._search, self._units, self._steps = search, units, steps
        self._done: list[tuple[Step, Trial]] = []

    def trial(self, step: Step) -> Trial:
        """``step`` exported and measured."""
        for known, trial in self._done:
            if known.stored == step.stored:
                return trial
        trial = self._search.export(self._units, step)
        self._done.append((step, trial))
        return trial

    def choose(self) -> Step | None:
        """The step with the fewest bytes that was found within the budget; None where not even the last is."""
        limit, last = self._search.budget.kl, len(self._steps) - 1
        first = next((number for number, step in enumerate(self._steps) if step.worst <= limit), last)
        if not self._over(first):
            return self._steps[first]
        refused, within = first, None
        for _ in range(_TRIES):
            middle = (refused + (last if within is None else within)) // 2
            if middle == refused:
                break
            if self._over(middle):
                refused = middle
            else:
                within = middle
        if within is None and refused < last and not self._over(last):
            within = last
        return None if within is None else self._steps[within]

    def _over(self, number: int) -> bool:
        step = self._steps[number]
        faults = self.trial(step).faults
        if faults:
            self._search.note(f"{step.size / 2**20:.2f} MiB are too few: {'; '.join(faults)}")
        return bool(faults)

    def measured(self, landmarks: Mapping[str, Step], chosen: Step | None) -> list[Measured]:
        """All of them, by what they are."""
        found = []
        for step, trial in self._done:
            names = [label for label, one in landmarks.items() if one.stored == step.stored]
            if chosen is not None and step.stored == chosen.stored:
                names.append("chosen")
            found.append(Measured(", ".join(names) or "tried", step, trial.costs))
        return found
