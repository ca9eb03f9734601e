"""From costs and sizes to plans: all units at the fewest bytes, then raised one after the other.

A plan's predicted cost in a language is the sum of its units'. Each step raises the unit that takes most off the
language that is worst then, per byte it adds (the greedy rule for the knapsack, Dantzig 1957; sensitivities first, as
in HAWQ-V2, arXiv:1911.03852, §3.3). The steps from the first to the last are the frontier.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from parrot_export.mixed.sensitivity import Costs
from parrot_export.mixed.units import Unit

# Bytes of a unit by choice.
Sizes = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Step:
    """A plan: what each unit is ``stored`` as, its ``size`` in bytes of weights, the cost ``predicted`` by language."""

    stored: Mapping[str, str]
    size: int
    predicted: Mapping[str, float]

    @property
    def worst(self) -> float:
        """Of the language that pays most, in nats."""
        return max(self.predicted.values())


def ladders(units: Sequence[Unit], sizes: Sizes) -> dict[str, tuple[str, ...]]:
    """Each unit's choices from the fewest bytes to the finest, without those that a finer one takes no more bytes than.

    4 bits are more than 8 where no block divides a matrix, which then stays in float16.
    """
    kept: dict[str, tuple[str, ...]] = {}
    for unit in units:
        for choice in reversed(unit.choices):
            finer = kept.get(unit.name, ())
            if all(sizes[unit.name][choice] < sizes[unit.name][other] for other in finer):
                kept[unit.name] = (choice, *finer)
    return kept


def frontier(ladder: Mapping[str, Sequence[str]], costs: Costs, sizes: Sizes, fixed: int) -> list[Step]:
    """Every step from the fewest bytes to the most; ``fixed`` are the bytes that belong to no unit."""
    stored = {name: choices[0] for name, choices in ladder.items()}
    steps = [make_step(stored, costs, sizes, fixed)]
    while raises := list(_raises(ladder, steps[-1], costs, sizes)):
        _, name, choice = max(raises, key=lambda one: one[0])
        stored = {**stored, name: choice}
        steps.append(make_step(stored, costs, sizes, fixed))
    return steps


def _raises(
    ladder: Mapping[str, Sequence[str]], step: Step, costs: Costs, sizes: Sizes
) -> Iterator[tuple[float, str, str]]:
    """Every finer choice of a unit of ``step``, and what it takes off the worst language per byte it adds."""
    worst = max(step.predicted, key=lambda code: step.predicted[code])
    for name, choices in ladder.items():
        now = step.stored[name]
        for choice in choices[choices.index(now) + 1 :]:
            taken = costs[name][now][worst] - costs[name][choice][worst]
            yield taken / (sizes[name][choice] - sizes[name][now]), name, choice


def make_step(stored: Mapping[str, str], costs: Costs, sizes: Sizes, fixed: int) -> Step:
    """The plan that stores units as ``stored`` says."""
    languages = next(iter(next(iter(costs.values())).values()))
    size = fixed + sum(sizes[name][choice] for name, choice in stored.items())
    return Step(
        dict(stored), size, {code: sum(costs[name][stored[name]][code] for name in stored) for code in languages}
    )
