"""The frontier of a search for people and programs: a table, data, and a plot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from parrot_export.gate import Cost
from parrot_export.mixed.search import Step

FRONTIER_JSON, FRONTIER_PLOT = "frontier.json", "frontier.svg"
_LISTED = 12


@dataclass(frozen=True)
class Measured:
    """A plan that was exported and put through the gate: its costs by language. ``label`` says which it is."""

    label: str
    step: Step
    costs: Mapping[str, Cost]

    @property
    def kl(self) -> float:
        """Nats, of the worst language."""
        return max(cost.kl for cost in self.costs.values())

    @property
    def drop(self) -> float:
        """Points of accuracy or of answers in the language asked, of the worst language; never below 0."""
        return max(0.0, *(max(cost.drop, cost.strayed) for cost in self.costs.values()))


def as_data(steps: Sequence[Step], measured: Sequence[Measured], costs: Mapping[str, Any]) -> dict[str, Any]:
    """What ``frontier.json`` holds: every step, every measured plan, and what each unit costs at each choice."""
    points = [
        {"label": one.label, "size": one.step.size, "stored": dict(one.step.stored), "predicted": one.step.predicted}
        | {"kl": one.kl, "drop": one.drop, "languages": {code: asdict(cost) for code, cost in one.costs.items()}}
        for one in measured
    ]
    path = [
        {"size": step.size, "raised": raised, "predicted": step.predicted}
        for step, raised in zip(steps, (None, *_raised(steps)), strict=True)
    ]
    return {"first": dict(steps[0].stored), "steps": path, "measured": points, "sensitivity": costs}


def table(data: Mapping[str, Any]) -> list[str]:
    """Lines for a person: what was measured, and a few steps of what was predicted between."""
    lines = ["     MiB  predicted KL  worst language   KL nats  drop points"]
    rows = [(one["size"], one["predicted"], one) for one in data["measured"]]
    sizes = {size for size, _, _ in rows}
    between = [one for one in data["steps"] if one["size"] not in sizes]
    every = max(1, -(-len(between) // _LISTED))
    rows += [(one["size"], one["predicted"], None) for one in between[every // 2 :: every]]
    for size, predicted, found in sorted(rows, key=lambda row: row[0]):
        worst = max(predicted, key=lambda code: predicted[code])
        line = f"{size / 2**20:>8.2f}  {predicted[worst]:>12.5f}  {worst:<14}"
        if found:
            line += f"  {found['kl']:>8.5f}  {found['drop']:>11.1f}  {found['label']}"
        lines.append(line.rstrip())
    return lines


def plot(data: Mapping[str, Any], path: Path) -> bool:
    """Draw the frontier into ``path``, which says the format; False, and nothing drawn, without matplotlib."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        # Without chance in its names or a date, so that the same search gives the same file.
        mpl.rcParams["svg.hashsalt"] = "parrot"
        from matplotlib import pyplot
    except ImportError:
        return False
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.6), sharex=True)
    steps, found = data["steps"], data["measured"]
    panels[0].plot(
        [_mib(one) for one in steps],
        [max(one["predicted"].values()) for one in steps],
        color="#9aa5b1",
        marker=".",
        label="predicted",
    )
    for panel, key, label in zip(panels, ("kl", "drop"), ("KL divergence, nats", "points lost"), strict=True):
        panel.scatter([_mib(one) for one in found], [one[key] for one in found], color="#2a7f62", label="measured")
        for number, one in enumerate(sorted(found, key=_mib)):  # neighbours stand close: their names take turns
            place = (3, 5 + 9 * (number % 2))
            panel.annotate(one["label"], (_mib(one), one[key]), place, textcoords="offset points", fontsize=7)
        panel.set_title(f"{label}, worst language", fontsize=10, loc="left")
        panel.set_xlabel("weights, MiB", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _mib(one: Mapping[str, Any]) -> float:
    return one["size"] / 2**20


def _raised(steps: Sequence[Step]) -> Iterator[dict[str, str]]:
    """What each step but the first changed."""
    for before, after in pairwise(steps):
        yield {name: choice for name, choice in after.stored.items() if before.stored[name] != choice}
