"""Pictures of the nano world: the same bytes always, each thing in its cell and in its colour."""

import hashlib
import itertools
import random
import subprocess
import sys

import numpy as np
import pytest

from parrot_train.nano import draw
from parrot_train.nano.scenes import BACKGROUNDS, COLOURS, KINDS, SIZES, Scene, Thing, sample_scene
from parrot_train.nano.shapes import SHAPES


def _thing(kind="apple", colour="red", size="large", cell=4, dx=0.0, dy=0.0, rotation=0.0, shade=0.0) -> Thing:
    return Thing(kind, colour, size, cell, dx, dy, rotation, shade)


def _scene(*things: Thing, seed=7, background="meadow", light=0.0, noise=0.0) -> Scene:
    return Scene(seed, background, things, light, noise)


def _pixels(scene: Scene, size: int = 96) -> np.ndarray:
    return np.asarray(draw.render(scene, size)).astype(int)


def _changed(scene: Scene, size: int) -> np.ndarray:
    """Where the picture differs from the same scene without its things; bool [size, size]."""
    return (_pixels(scene, size) != _pixels(Scene(scene.seed, scene.background, (), 0.0, 0.0), size)).any(axis=2)


def test_every_kind_colour_and_background_of_the_world_can_be_drawn():
    assert set(SHAPES) == set(KINDS)
    assert set(draw.COLOUR_VALUES) == set(COLOURS)
    assert set(draw.BACKGROUND_PAINTERS) == set(BACKGROUNDS)
    assert set(draw.SPANS) == set(SIZES)


@pytest.mark.parametrize("size", [48, 97, 192])
def test_picture_has_the_size_and_mode_asked(size):
    picture = draw.render(sample_scene(random.Random(3)), size)
    assert picture.mode == "RGB"
    assert picture.size == (size, size)


_DIGEST = """
import hashlib, random
from parrot_train.nano import draw
from parrot_train.nano.scenes import sample_scene
picture = draw.render(sample_scene(random.Random(11)), 96)
print(hashlib.sha256(picture.tobytes()).hexdigest())
"""


def test_same_scene_gives_the_same_bytes_whatever_was_drawn_before():
    scene = sample_scene(random.Random(11))
    first = draw.render(scene, 96).tobytes()
    for seed in range(5):
        draw.render(sample_scene(random.Random(seed)), 96)
    assert draw.render(scene, 96).tobytes() == first
    fresh = subprocess.run([sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == hashlib.sha256(first).hexdigest()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_background_details_follow_the_seed(background):
    assert (_pixels(_scene(seed=1, background=background)) != _pixels(_scene(seed=2, background=background))).any()


@pytest.mark.parametrize("size_name", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_of_a_kind_is_drawn_and_differs_from_the_others(kind, size_name):
    pictures = {_pixels(_scene(_thing(kind, colour, size_name))).tobytes() for colour in COLOURS}
    assert len(pictures) == len(COLOURS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_stays_inside_its_cell(kind):
    """At the widest jitter and rotation, in a corner, a border and the middle cell; 96 is three cells of 32 pixels."""
    for cell, size_name, rotation in itertools.product((0, 4, 5), SIZES, (-25.0, 0.0, 25.0)):
        for dx, dy in ((-1.0, -1.0), (1.0, 1.0)):
            changed = _changed(_scene(_thing(kind, "blue", size_name, cell, dx, dy, rotation)), 96)
            row, column = divmod(cell, 3)
            inside = changed[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            assert inside.sum() > 50
            assert changed.sum() == inside.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_large_and_small_things_span_their_part_of_a_cell(kind):
    """Upright a thing may be narrower than at its widest rotation: a third below; a begun pixel on each side above."""
    for size_name, part in draw.SPANS.items():
        rows, columns = np.nonzero(_changed(_scene(_thing(kind, "purple", size_name)), 192))
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.66 * part * 64 <= extent < part * 64 + 2


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_named_colour_dominates_a_large_thing(kind, colour):
    """Most pixels of the body are nearest to their own colour, on every background and at every shade."""
    names = list(draw.COLOUR_VALUES)
    values = np.array([draw.COLOUR_VALUES[name] for name in names])
    body = np.asarray(draw._stencil(kind, "large", 192).own.reduce(draw.CANVAS_SCALE)) > 250
    for background, shade in zip(BACKGROUNDS, (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0), strict=True):
        tile = _pixels(_scene(_thing(kind, colour, shade=shade), background=background), 192)
        top = 96 - body.shape[0] // 2
        pixels = tile[top : top + body.shape[0], top : top + body.shape[1]][body]
        nearest = np.abs(pixels[:, None] - values).sum(axis=2).argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(names))
        assert names[counts.argmax()] == colour
        assert counts[names.index(colour)] > 0.5 * len(pixels)


def test_a_things_own_colour_covers_most_of_it():
    for kind in KINDS:
        stencil = draw._stencil(kind, "large", 192)
        own, alpha = np.asarray(stencil.own).sum(), (np.asarray(stencil.alpha) > 250).sum() * 255
        assert own > 0.5 * alpha, kind


def test_colours_are_far_apart():
    values = np.array(list(draw.COLOUR_VALUES.values()))
    apart = np.abs(values[:, None] - values).sum(axis=2) + 1000 * np.eye(len(values), dtype=int)
    assert apart.min() > 100


def test_light_and_noise_do_what_they_say():
    plain, bright, dark = (_pixels(_scene(_thing(), light=light)).mean() for light in (0.0, 1.0, -1.0))
    assert dark < plain < bright
    difference = _pixels(_scene(_thing(colour="brown"), background="night", noise=1.0)) - _pixels(
        _scene(_thing(colour="brown"), background="night")
    )
    # 9 levels at full noise; 27648 samples put the estimate within 1 %, clipping and rounding within a few more.
    assert difference.std() == pytest.approx(9, rel=0.1)
    assert abs(difference.mean()) < 0.3
