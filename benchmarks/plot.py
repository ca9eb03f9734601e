"""A picture of a comparison: one panel per figure, one bar per subject, least to most as a line on it."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from parrot_benchmarks.workload import Cost
from parrot_runtime.plotting import import_pyplot, save

_PANELS = {
    "first": "first token, s",
    "step_ms": "a step, ms",
    "total": "whole answer, s",
    "memory": "peak memory, MiB",
}
_OURS, _OTHERS = "#2a7f62", "#9aa5b1"


def save_plot(path: Path, costs: Mapping[str, Sequence[Cost]], ours: int, title: str) -> None:
    """Draw medians of ``costs`` by name, the first ``ours`` of which are bundles, into ``path``; its suffix says how.

    Raises InputError where matplotlib is missing or does not know the suffix, ParrotError where it cannot be written.
    """
    pyplot = import_pyplot()
    names = list(costs)
    figure, panels = pyplot.subplots(1, len(_PANELS), figsize=(13, 0.9 + 0.5 * len(names)), sharey=True)
    for panel, (field, label) in zip(panels, _PANELS.items(), strict=True):
        values = [[getattr(cost, field) for cost in each] for each in costs.values()]
        middle = [statistics.median(each) for each in values]
        spread = [[m - min(each) for m, each in zip(middle, values, strict=True)]]
        spread += [[max(each) - m for m, each in zip(middle, values, strict=True)]]
        colours = [_OURS if number < ours else _OTHERS for number in range(len(names))]
        bars = panel.barh(names, middle, xerr=spread, color=colours, height=0.62, error_kw={"lw": 1, "alpha": 0.6})
        panel.bar_label(bars, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in middle], padding=6)
        panel.set_title(label, fontsize=10, loc="left")
        panel.set_xlim(0, 1.35 * max(*(max(each) for each in values), 1e-9))
        panel.xaxis.set_visible(False)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.tick_params(left=False)
    panels[0].invert_yaxis()
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    figure.tight_layout()
    save(figure, path, force=True)
