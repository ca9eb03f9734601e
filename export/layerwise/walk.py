"""Samples through the float32 graphs, a segment at a time: what enters products is seen where it does.

Below a folder of work stand the graphs, with the checkpoint's weights, and what the samples carry from one segment to
the next. Segments are to be passed in order, each as often as wanted, and done with one after the other; a walk that
is taken up later over the same folder goes on at the first that is not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parrot_export.author import Authored
from parrot_export.checkpoint import Checkpoint
from parrot_export.layerwise.feeds import Encoded, Feeds
from parrot_export.layerwise.graphs import looked_at, plan_graphs
from parrot_export.layerwise.segments import Segment, Segmented, States
from parrot_export.weights import require_room
from parrot_runtime.publish import publish_directory

# Of each graph, what the next one takes.
_RESULTS = {"encoder": ("image_features",), "experts": ("visual_tokens",), "decoder": ()}


@dataclass(frozen=True)
class Step:
    """One segment of one graph. ``exposed`` are the values to look at, with the modules that read each.

    ``before`` is the step whose state it starts from, of the same graph; ``carried`` what it leaves to those behind.
    """

    name: str
    role: str
    segment: Segment
    exposed: dict[str, tuple[str, ...]]
    before: str | None
    carried: frozenset[str]


# One pass of all samples: the number of each, and the exposed values by name, float32 ``[rows, K]``.
Pass = Callable[[], Iterator[tuple[int, dict[str, np.ndarray]]]]


class Walk:
    """``encoded`` samples through the graphs of ``checkpoint``; ``work`` is a folder of their own."""

    def __init__(self, checkpoint: Checkpoint, encoded: Sequence[Encoded], work: Path, threads: int = 0) -> None:
        self._encoded, self._states = encoded, States(work / "states")
        authored = _write_graphs(checkpoint, max(len(one.ids) for one in encoded), work / "graphs")
        self.feeds = Feeds(checkpoint, authored, work / "graphs", encoded)
        self._segmented, steps, self._start = {}, [], {}
        for role, graph in authored.graphs.items():
            modules, results = looked_at(authored.products[role]), _RESULTS[role]
            self._start[role] = steps[-1].name if steps else None
            segmented = Segmented(work / "graphs", graph.file, authored.models[role], modules, results, threads)
            self._segmented[role] = segmented
            steps += _steps(role, segmented.segments, modules, results)
        self.steps = tuple(steps)

    def open(self, step: Step) -> Pass:
        """Load ``step``: every call of what is given back passes all samples through it, and keeps their states."""
        segmented = self._segmented[step.role]
        session = segmented.session(step.segment)

        def run() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
            for at in range(len(self._encoded)):
                state = self._states.read(step.before, at) if step.before else self._inputs(step.role, at)
                given = segmented.run(session, step.segment, state)
                self._states.write(step.name, at, {n: a for n, a in (state | given).items() if n in step.carried})
                yield at, {name: given[name].reshape(-1, given[name].shape[-1]) for name in step.exposed}

        return run

    def close(self, step: Step) -> None:
        """``step`` will not be passed again: what it started from is forgotten."""
        if step.before:
            self._states.drop(step.before)

    def _inputs(self, role: str, at: int) -> dict[str, np.ndarray]:
        if self._start[role] is None:
            return self.feeds.encoder(at)
        state = self._states.read(self._start[role], at)
        if role == "experts":
            return self.feeds.experts(at, state["image_features"])
        return self.feeds.decoder(at, state.get("visual_tokens", state.get("image_features")))


def _steps(
    role: str, segments: Sequence[Segment], modules: dict[str, tuple[str, ...]], results: tuple[str, ...]
) -> Iterator[Step]:
    """The steps of one graph; what nobody looks at or takes is none."""
    before = None
    for number, segment in enumerate(segments):
        if segment.gives or segment.exposed:
            name = f"{role}-{number:03d}"
            carried = {value for later in segments[number + 1 :] for value in later.takes} | set(results)
            exposed = {value: modules[value] for value in segment.exposed}
            yield Step(name, role, segment, exposed, before, frozenset(carried))
            before = name


def _write_graphs(checkpoint: Checkpoint, longest: int, folder: Path) -> Authored:
    """The graphs for sequences of up to ``longest``, written to ``folder`` unless they stand there."""
    authored = plan_graphs(checkpoint, longest)
    if not folder.exists():
        with publish_directory(folder) as beside:
            require_room(beside, authored.size)
            for file in authored.files:
                file.write(beside)
            authored.save_graphs(beside)
    return authored
