"""Scenes: reproducible, within the grid, and split by content."""

from dataclasses import replace
from itertools import islice

import pytest

from parrot_train.nano.scenes import BACKGROUNDS, CLASSES, KINDS, MOST_THINGS, scenes


@pytest.fixture(scope="module")
def sample():
    return list(islice(scenes("train", seed=5), 500))


def test_the_world_has_at_least_24_kinds_in_classes_of_at_least_four():
    assert len(KINDS) == len(set(KINDS)) >= 24
    # A four-option question about a class needs four members.
    assert all(len(kinds) >= 4 for kinds in CLASSES.values())


def test_same_seed_same_scenes(sample):
    assert list(islice(scenes("train", seed=5), 500)) == sample
    assert list(islice(scenes("train", seed=6), 500)) != sample


def test_every_thing_has_a_cell_of_its_own(sample):
    for scene in sample:
        cells = [thing.cell for thing in scene.things]
        assert len(set(cells)) == len(cells) <= MOST_THINGS
        assert all(0 <= cell < 9 for cell in cells)
        assert scene.background in BACKGROUNDS


def test_groups_hold_every_thing_once(sample):
    for scene in sample:
        assert sorted(cell for group in scene.groups for cell in group.cells) == sorted(t.cell for t in scene.things)
        assert len({group.kind for group in scene.groups}) == len(scene.groups)


def test_the_split_depends_on_what_is_shown_alone(sample):
    for scene in sample[:100]:
        assert replace(scene, seed=1, light=0.5, noise=0.1).split == scene.split == "train"
        assert replace(scene, things=scene.things[::-1]).split == "train"
    assert all(scene.split == "held-out" for scene in islice(scenes("held-out", seed=5), 100))


def test_both_splits_show_every_kind():
    for split in ("train", "held-out"):
        assert {t.kind for scene in islice(scenes(split, seed=1), 300) for t in scene.things} == set(KINDS)


def test_scenes_of_mixed_company_have_two_to_four_kinds():
    drawn = list(islice(scenes("held-out", seed=4, mixed=True), 400))
    kinds = [len(scene.groups) for scene in drawn]
    assert {*kinds} == {2, 3, 4}
    assert all(scene.split == "held-out" and len(scene.things) <= MOST_THINGS for scene in drawn)
    alone = [group.count == 1 for scene in drawn for group in scene.groups]
    assert 0.65 < sum(alone) / len(alone) < 0.9
