"""What can be asked about a scene: twenty-two categories, sixteen of values and six to be answered Yes or No.

A category is a function from a scene to what is asked; the grammar of a language puts it into words. A function gives
None where its question would make no sense or have two answers (``Where is the apple?`` with three apples).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parrot_train.nano.grammar import Grammar
from parrot_train.nano.scenes import BACKGROUNDS, CLASS_OF, CLASSES, COLOURS, KINDS, MOST_THINGS, Group, Scene


@dataclass(frozen=True)
class Asked:
    """A question before it takes a form: its words, the right value and wrong ones, already in words."""

    question: str
    value: str
    wrong: tuple[str, ...] = ()
    sentence: str | None = None  # an open answer that is more than the value


Category = Callable[[Scene, Grammar, random.Random], Asked | None]
YesNoCategory = Callable[[Scene, Grammar, random.Random, bool], str | None]


def _singles(scene: Scene) -> list[Group]:
    return [group for group in scene.groups if group.count == 1]


def _pick(random_: random.Random, items: Sequence) -> object | None:
    return random_.choice(items) if items else None


def _others(random_: random.Random, right: str, pool: Sequence[str], render: Callable[[str], str]) -> tuple[str, ...]:
    """Three wrong values from ``pool``, different from the right one in words too."""
    words = dict.fromkeys(render(item) for item in random_.sample(pool, len(pool)))
    words.pop(render(right), None)
    return tuple(words)[:3]


def _kinds(
    random_: random.Random, right: str, scene: Scene, g: Grammar, near: Sequence[str] = (), named: str = ""
) -> tuple[str, ...]:
    """Wrong kinds: ``near``, then those of the scene (the tempting ones), then any; never one the question names."""
    present = [group.kind for group in scene.groups]
    pool = [*near, *present, *random_.sample(KINDS, 8)]
    words = dict.fromkeys(g.one(kind) for kind in pool if kind not in (right, named))
    return tuple(words)[:3]


def object_(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    return Asked(r.choice(g.object()), "", sentence=g.sentence(g.listing(scene.groups)))


def describe(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    return Asked(r.choice(g.describe()), "", sentence=g.caption(scene.groups, scene.background))


def report(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    return Asked(g.describe_places(), "", sentence=g.report(scene.groups, scene.background))


def which_present(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    present = {group.kind for group in scene.groups}
    right = r.choice(sorted(present))
    absent = [kind for kind in KINDS if kind not in present]
    return Asked(g.which_present(), g.one(right), tuple(g.one(kind) for kind in r.sample(absent, 3)))


def absent(scene: Scene, g: Grammar, r: random.Random) -> Asked | None:
    present = [group.kind for group in scene.groups]
    if len(present) < 3:
        return None
    right = r.choice([kind for kind in KINDS if kind not in present])
    return Asked(g.absent(), g.missing(right), tuple(g.missing(kind) for kind in present))


def colour(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    group = r.choice(scene.groups)
    near = [other.colour for other in scene.groups if other.colour != group.colour]
    pool = [*near, *(c for c in r.sample(COLOURS, len(COLOURS)) if c != group.colour)]
    wrong = tuple(dict.fromkeys(g.colour_of(group, c) for c in pool))[:3]
    return Asked(g.colour(group), g.colour_of(group, group.colour), wrong)


def count(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    # Most kinds stand alone; without weights nearly every answer would be one.
    group = r.choices(scene.groups, weights=[3 if each.count > 1 else 1 for each in scene.groups])[0]
    return Asked(g.count(group.kind), g.number_of(group.kind, group.count), _numbers(group.count, group.kind, g, r))


def total(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    number = len(scene.things)
    return Asked(g.total(), g.number_of(None, number), _numbers(number, None, g, r))


def _numbers(right: int, kind: str | None, g: Grammar, r: random.Random) -> tuple[str, ...]:
    nearest = sorted((n for n in range(1, MOST_THINGS + 1) if n != right), key=lambda n: abs(n - right) + r.random())
    return tuple(g.number_of(kind, n) for n in nearest[:3])


def position(scene: Scene, g: Grammar, r: random.Random) -> Asked | None:
    group = _pick(r, _singles(scene))
    if group is None:
        return None
    right = group.cells[0]
    return Asked(
        g.position(group.kind),
        g.place(right),
        tuple(g.place(c) for c in r.sample([c for c in range(9) if c != right], 3)),
    )


def at_position(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    thing = r.choice(scene.things)
    return Asked(g.at_position(thing.cell), g.one(thing.kind), _kinds(r, thing.kind, scene, g))


def with_colour(scene: Scene, g: Grammar, r: random.Random) -> Asked | None:
    colours = [group.colour for group in scene.groups]
    group = _pick(r, [each for each in _singles(scene) if colours.count(each.colour) == 1])
    if group is None:
        return None
    return Asked(g.with_colour(group.colour), g.one(group.kind), _kinds(r, group.kind, scene, g))


def size(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    group = r.choice(scene.groups)
    return Asked(g.size(group), g.size_of(group, group.size))


def comparison(scene: Scene, g: Grammar, r: random.Random) -> Asked | None:
    sizes: dict[str, list[Group]] = {"small": [], "large": []}
    for group in _singles(scene):
        sizes[group.size].append(group)
    if not sizes["small"] or not sizes["large"]:
        return None
    pair = [r.choice(sizes["large"]), r.choice(sizes["small"])]
    larger = r.random() < 0.5
    right = pair[0 if larger else 1]
    first, second = r.sample(pair, 2)
    return Asked(g.comparison(first.kind, second.kind, larger=larger), g.the(right.kind))


def background(scene: Scene, g: Grammar, r: random.Random) -> Asked:
    return Asked(g.background(), g.scenery(scene.background), _others(r, scene.background, BACKGROUNDS, g.scenery))


def class_member(scene: Scene, g: Grammar, r: random.Random) -> Asked | None:
    classes = [CLASS_OF[group.kind] for group in scene.groups]
    group = _pick(r, [each for each in scene.groups if classes.count(CLASS_OF[each.kind]) == 1])
    if group is None:
        return None
    name = CLASS_OF[group.kind]
    return Asked(g.class_member(name), g.one(group.kind), _kinds(r, group.kind, scene, g, r.sample(CLASSES[name], 4)))


def _directions(first: Group, second: Group) -> list[str]:
    """Where the first single thing stands as seen from the second."""
    (row, column), (other_row, other_column) = divmod(first.cells[0], 3), divmod(second.cells[0], 3)
    found = []
    if column != other_column:
        found.append("left" if column < other_column else "right")
    if row != other_row:
        found.append("above" if row < other_row else "below")
    return found


def beside(scene: Scene, g: Grammar, r: random.Random) -> Asked | None:
    if len(scene.groups) < 2 or len(_singles(scene)) < len(scene.groups):
        return None
    found = []
    for anchor in scene.groups:
        for direction in ("left", "right", "above", "below"):
            there = [o for o in scene.groups if o is not anchor and direction in _directions(o, anchor)]
            if len(there) == 1:
                found.append((direction, anchor, there[0]))
    if not found:
        return None
    direction, anchor, right = r.choice(found)
    return Asked(
        g.beside(direction, anchor.kind), g.one(right.kind), _kinds(r, right.kind, scene, g, named=anchor.kind)
    )


def existence(scene: Scene, g: Grammar, r: random.Random, truth: bool) -> str:
    present = [group.kind for group in scene.groups]
    return g.existence(r.choice(present if truth else [kind for kind in KINDS if kind not in present]))


def class_existence(scene: Scene, g: Grammar, r: random.Random, truth: bool) -> str:
    present = sorted({CLASS_OF[group.kind] for group in scene.groups})
    return g.class_existence(r.choice(present if truth else [name for name in CLASSES if name not in present]))


def is_colour(scene: Scene, g: Grammar, r: random.Random, truth: bool) -> str:
    group = r.choice(scene.groups)
    if truth:
        return g.is_colour(group, group.colour)
    near = [other.colour for other in scene.groups if other.colour != group.colour]
    return g.is_colour(group, r.choice([*near, *near, *(c for c in COLOURS if c != group.colour)]))


def is_beside(scene: Scene, g: Grammar, r: random.Random, truth: bool) -> str | None:
    singles = _singles(scene)
    pairs = [(a, b) for a in singles for b in singles if a is not b and _directions(a, b)]
    if not pairs:
        return None
    first, second = r.choice(pairs)
    direction = r.choice(_directions(first, second))
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[direction]
    return g.is_beside(first.kind, direction if truth else opposite, second.kind)


def same_colour(scene: Scene, g: Grammar, r: random.Random, truth: bool) -> str | None:
    singles = _singles(scene)
    pairs = [(a, b) for a in singles for b in singles if a is not b and (a.colour == b.colour) == truth]
    if not pairs:
        return None
    first, second = r.choice(pairs)
    return g.same_colour(first.kind, second.kind)


def more(scene: Scene, g: Grammar, r: random.Random, truth: bool) -> str | None:
    pairs = [(a, b) for a in scene.groups for b in scene.groups if a.count > b.count]
    if not pairs:
        return None
    many, few = r.choice(pairs)
    return g.more(many.kind, few.kind) if truth else g.more(few.kind, many.kind)


VALUE_CATEGORIES: dict[str, Category] = {
    "object": object_,
    "describe": describe,
    "report": report,
    "which_present": which_present,
    "absent": absent,
    "colour": colour,
    "count": count,
    "total": total,
    "position": position,
    "at_position": at_position,
    "with_colour": with_colour,
    "size": size,
    "comparison": comparison,
    "background": background,
    "class_member": class_member,
    "beside": beside,
}
YES_NO_CATEGORIES: dict[str, YesNoCategory] = {
    "existence": existence,
    "class_existence": class_existence,
    "is_colour": is_colour,
    "is_beside": is_beside,
    "same_colour": same_colour,
    "more": more,
}
