"""The picture world as data: what a scene holds, and how scenes are drawn at random.

A scene is a background and one to three groups of things; the things of a group share kind, colour and size, and every
thing stands in a cell of its own of a 3 × 3 grid. Scenes are split by *content*, not by seed: no arrangement of the
held-out split ever occurs in training, for the backbones included.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

CLASSES: dict[str, tuple[str, ...]] = {
    "fruit": ("apple", "banana", "pear", "lemon"),
    "animal": ("cat", "fish", "bird", "butterfly"),
    "vehicle": ("car", "bus", "boat", "airplane"),
    "household": ("cup", "lamp", "chair", "bottle"),
    "clothing": ("hat", "shirt", "shoe", "sock"),
    "plant": ("tree", "flower", "cactus", "leaf"),
    "toy": ("ball", "kite", "drum", "balloon"),
}
KINDS: tuple[str, ...] = tuple(kind for kinds in CLASSES.values() for kind in kinds)
CLASS_OF: dict[str, str] = {kind: name for name, kinds in CLASSES.items() for kind in kinds}
COLOURS: tuple[str, ...] = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "white",
    "black",
)
SIZES: tuple[str, ...] = ("small", "large")
BACKGROUNDS: tuple[str, ...] = ("meadow", "beach", "snow", "night", "desert", "room")
CELLS: tuple[str, ...] = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
MOST_THINGS = 6
# How often a scene has so many kinds of things, and how often so many of a kind, in the world and in mixed company.
KIND_COUNTS, THING_COUNTS = {1: 30, 2: 40, 3: 30}, {1: 58, 2: 14, 3: 11, 4: 9, 5: 8}
MIXED_KINDS, MIXED_THINGS = {2: 25, 3: 50, 4: 25}, {1: 75, 2: 15, 3: 10}

Split = Literal["train", "held-out"]


@dataclass(frozen=True)
class Thing:
    """One thing: ``cell`` 0–8 row by row; ``dx``, ``dy`` in [-1, 1] of the free room; ``rotation`` in degrees."""

    kind: str
    colour: str
    size: str
    cell: int
    dx: float
    dy: float
    rotation: float
    shade: float

    @property
    def column(self) -> int:
        return self.cell % 3

    @property
    def row(self) -> int:
        return self.cell // 3


@dataclass(frozen=True)
class Group:
    """The things of one kind in a scene: all of one colour and size."""

    kind: str
    colour: str
    size: str
    cells: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.cells)


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn. ``light`` in [-1, 1], ``noise`` in [0, 1]; ``seed`` moves background details."""

    seed: int
    background: str
    things: tuple[Thing, ...]
    light: float
    noise: float

    @property
    def groups(self) -> tuple[Group, ...]:
        """The things by kind, in the order in which a reader meets them: row by row."""
        order: dict[str, list[Thing]] = {}
        for thing in sorted(self.things, key=lambda thing: thing.cell):
            order.setdefault(thing.kind, []).append(thing)
        return tuple(
            Group(kind, things[0].colour, things[0].size, tuple(thing.cell for thing in things))
            for kind, things in order.items()
        )

    @property
    def split(self) -> Split:
        """Which side this arrangement belongs to: one in ten is held out, by a hash of what the scene shows."""
        content = (self.background, sorted((t.cell, t.kind, t.colour, t.size) for t in self.things))
        return "held-out" if hashlib.sha256(repr(content).encode()).digest()[0] % 10 == 0 else "train"


def sample_scene(random_: random.Random, *, mixed: bool = False) -> Scene:
    """One scene at random, of either split; ``mixed`` ones have two to four kinds of things, most of them alone."""
    kind_counts, thing_counts = (MIXED_KINDS, MIXED_THINGS) if mixed else (KIND_COUNTS, THING_COUNTS)
    kinds = random_.sample(KINDS, random_.choices(list(kind_counts), weights=kind_counts.values())[0])
    counts = [random_.choices(list(thing_counts), weights=thing_counts.values())[0] for _ in kinds]
    while sum(counts) > MOST_THINGS:
        largest = counts.index(max(counts))
        counts[largest] -= 1
    cells = random_.sample(range(9), sum(counts))
    things = []
    for kind, count in zip(kinds, counts, strict=True):
        colour, size = random_.choice(COLOURS), random_.choice(SIZES)
        for _ in range(count):
            dx, dy, shade = (random_.uniform(-1, 1) for _ in range(3))
            things.append(Thing(kind, colour, size, cells.pop(), dx, dy, random_.uniform(-25, 25), shade))
    background = random_.choice(BACKGROUNDS)
    return Scene(random_.getrandbits(32), background, tuple(things), random_.uniform(-1, 1), random_.random())


def scenes(split: Split, *, seed: int | str, mixed: bool = False) -> Iterator[Scene]:
    """An endless stream of scenes of one split; the same seed gives the same stream on every machine."""
    random_ = random.Random(f"{split}/{seed}")
    while True:
        scene = sample_scene(random_, mixed=mixed)
        if scene.split == split:
            yield scene
