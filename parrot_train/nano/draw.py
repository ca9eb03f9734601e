"""Pictures of nano scenes, drawn by code: the same scene always gives the same bytes.

A picture is painted at twice its size and halved at the end. A thing is first made into a :class:`Stencil`: its drawing
without a colour, fitted to its cell at any rotation, with a dark outline and a light halo of one weight for all kinds.
Stencils are kept, so a picture costs a few look-up tables and one affine transform per thing.
"""

import functools
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from parrot_train.nano.backgrounds import BACKGROUND_PAINTERS
from parrot_train.nano.pen import EDGE, INK, LIGHT, PLAIN, RGB, SHADOW, Pen
from parrot_train.nano.scenes import Scene, Thing
from parrot_train.nano.shapes import SHAPES

COLOUR_VALUES: dict[str, RGB] = {
    "red": (216, 30, 38),
    "orange": (252, 138, 16),
    "yellow": (252, 220, 44),
    "green": (46, 158, 64),
    "blue": (38, 94, 216),
    "purple": (128, 56, 180),
    "pink": (252, 142, 190),
    "brown": (124, 76, 42),
    "white": (247, 247, 245),
    "black": (44, 44, 50),
}
# Tones of the colours for which darkening and lightening would not do: lines on black must be pale (and what lies
# between line and colour must not be darker than both), a shadow on white is bluish, darkened yellow would be olive.
_EDGES: dict[str, RGB] = {"black": (124, 126, 138)}
_SHADOWS: dict[str, RGB] = {"yellow": (216, 184, 36), "white": (190, 194, 206), "black": (66, 66, 74)}
_LIGHTS: dict[str, RGB] = {"white": (255, 255, 255), "black": (150, 152, 166)}
HALO: RGB = (255, 255, 255)
HALO_OPACITY = 0.85
# Diameter of a thing with its outline and halo at its widest rotation, as a part of its cell.
SPANS = {"small": 0.56, "large": 0.95}
# Things are fitted to their cells for rotations up to this many degrees either way.
MAX_ROTATION = 30.0
CANVAS_SCALE = 2
_STENCIL_SCALE = 4


@dataclass(frozen=True)
class Stencil:
    """A thing without its colour: four square layers of one size, on the canvas's scale.

    ``tone`` (L) says how light the own colour is where ``own`` (L) holds; ``fixed`` (RGB) is everything else;
    ``alpha`` (L) is the whole with its outline and halo.
    """

    tone: Image.Image
    own: Image.Image
    fixed: Image.Image
    alpha: Image.Image


def render(scene: Scene, size: int = 192) -> Image.Image:
    """Draw a scene: RGB, ``size`` x ``size`` pixels; every byte follows from the scene and the size alone."""
    chance = random.Random(scene.seed)
    canvas = BACKGROUND_PAINTERS[scene.background](size * CANVAS_SCALE, chance)
    for thing in scene.things:
        _place(canvas, thing, size)
    picture = canvas.reduce(CANVAS_SCALE)
    return _develop(picture, scene.light, scene.noise, chance)


def _place(canvas: Image.Image, thing: Thing, size: int) -> None:
    """Colour, rotate and lay one thing on the canvas, inside its cell of the 3x3 grid."""
    cell = size * CANVAS_SCALE / 3
    span = SPANS[thing.size] * cell
    stencil = _stencil(thing.kind, thing.size, size)
    tile = _coloured(stencil, thing.colour, round(thing.shade * 8))
    # Resampling spills over by up to a canvas pixel, which must not reach the next cell either.
    room = max(0.0, (cell - span) / 2 - 1)
    x = (thing.cell % 3 + 0.5) * cell + thing.dx * room
    y = (thing.cell // 3 + 0.5) * cell + thing.dy * room
    pixels = tile.width
    left, top = math.floor(x - pixels / 2), math.floor(y - pixels / 2)
    matrix = _rotation(thing.rotation, pixels, x - left, y - top)
    turned = tile.transform(tile.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    canvas.paste(turned, (left, top), turned)


def _rotation(degrees: float, pixels: int, x: float, y: float) -> tuple[float, ...]:
    """The affine matrix, output to input, that turns a tile clockwise and puts its centre at (x, y)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = pixels / 2
    return (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)


def _coloured(stencil: Stencil, colour: str, shade: int) -> Image.Image:
    """The stencil in a colour, RGBA; ``shade`` in eighths."""
    own = Image.merge("RGB", [stencil.tone.point(table) for table in _tables(colour, shade)])
    tile = Image.composite(own, stencil.fixed, stencil.own)
    tile.putalpha(stencil.alpha)
    return tile


@functools.lru_cache(maxsize=256)
def _tables(colour: str, shade: int) -> tuple[list[int], ...]:
    """Per channel the value of each tone 0..255 of a colour: edge line, shadow, plain, light, straight in between."""
    strength = 1 + 0.07 * shade / 8
    base = np.array(COLOUR_VALUES[colour], dtype=float) * strength
    edge = np.array(_EDGES.get(colour, INK), dtype=float)
    shadow = np.array(_SHADOWS[colour]) * strength if colour in _SHADOWS else base * 0.68
    light = np.array(_LIGHTS[colour], dtype=float) if colour in _LIGHTS else base * 0.25 + 255 * 0.75
    knots = np.stack([edge, shadow, base, light]).clip(0, 255)
    return tuple(
        np.interp(range(256), (EDGE, SHADOW, PLAIN, LIGHT), knots[:, c]).round().astype(int).tolist() for c in range(3)
    )


@functools.lru_cache(maxsize=256)
def _stencil(kind: str, size_name: str, size: int) -> Stencil:
    """Draw a kind so that outline and halo included it spans its part of a cell at its widest rotation."""
    span = SPANS[size_name] * size * CANVAS_SCALE / 3
    pixels = 2 * math.ceil(span / 2) + 4
    big = pixels * _STENCIL_SCALE
    line = _STENCIL_SCALE * size * CANVAS_SCALE / 3 * (0.017 if size_name == "large" else 0.014)
    halo = line
    cx, cy, reach = _measure(kind)
    # Pillow fills the pixels that an edge touches: two pixels of the drawing are kept for that.
    scale = (span * _STENCIL_SCALE / 2 - line - halo - 2) / reach
    pen = Pen(big, scale, (cx, cy), line / 2 * 1.3)
    SHAPES[kind](pen)
    outline = _grown(pen.silhouette, line)
    around = _grown(outline, halo)
    fixed = Image.composite(
        Image.composite(pen.fixed, Image.new("RGB", (big, big), INK), pen.silhouette),
        Image.new("RGB", (big, big), HALO),
        outline,
    )
    alpha = ImageChops.lighter(outline, around.point([round(v * HALO_OPACITY) for v in range(256)]))
    layers = (_lit(pen.tone, pen.silhouette), ImageChops.darker(pen.own, pen.silhouette), fixed, alpha)
    return Stencil(*(layer.reduce(_STENCIL_SCALE) for layer in layers))


@functools.lru_cache(maxsize=64)
def _measure(kind: str) -> tuple[float, float, float]:
    """The middle (x, y) of a kind's drawing and how far it reaches from there in x or y at any allowed rotation."""
    pixels, scale = 320, 100.0
    pen = Pen(pixels, scale, (0.0, 0.0), 1.0)
    SHAPES[kind](pen)
    rows, columns = np.nonzero(np.asarray(pen.silhouette))
    points = (np.stack([columns, rows]) + 0.5 - pixels / 2) / scale
    middle = (points.min(axis=1) + points.max(axis=1)) / 2
    offset = points - middle[:, None]
    reach = 0.0
    for degrees in np.arange(-MAX_ROTATION, MAX_ROTATION + 1, 5):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        reach = max(reach, float(np.abs(np.array([[cos, -sin], [sin, cos]]) @ offset).max()))
    return float(middle[0]), float(middle[1]), reach


def _grown(mask: Image.Image, radius: float) -> Image.Image:
    """A mask widened by ``radius`` pixels on every side, corners rounded."""
    grown = mask
    for index in range(32):
        angle = 2 * math.pi * index / 32
        grown = ImageChops.lighter(grown, _moved(mask, radius * math.cos(angle), radius * math.sin(angle)))
    return grown


def _moved(mask: Image.Image, dx: float, dy: float) -> Image.Image:
    moved = Image.new("L", mask.size, 0)
    moved.paste(mask, (round(dx), round(dy)))
    return moved


def _lit(tone: Image.Image, silhouette: Image.Image) -> Image.Image:
    """The tones with a soft light from the upper left: the rim lighter on that side, darker on the other."""
    soft = silhouette.filter(ImageFilter.GaussianBlur(silhouette.width / 22))
    shift = silhouette.width / 18
    lit, unlit = (np.asarray(_moved(soft, sign * shift, sign * shift), dtype=float) for sign in (-1, 1))
    tones = np.asarray(tone, dtype=float)
    shaded = (tones + (lit - unlit) / 255 * 46).clip(SHADOW * 0.6, LIGHT)
    return Image.fromarray(np.where(tones < SHADOW * 0.5, tones, shaded).astype(np.uint8))


def _develop(picture: Image.Image, light: float, noise: float, chance: random.Random) -> Image.Image:
    """Brightness and sensor noise. The noise is made of Random's bytes, which no library version changes."""
    if not light and not noise:
        return picture
    values = np.asarray(picture, dtype=np.float32) * np.float32(1 + 0.12 * light)
    if noise:
        grain = (
            np.frombuffer(chance.randbytes(2 * values.size), dtype=np.uint8)
            .reshape(2, *values.shape)
            .astype(np.float32)
        )
        # The difference of two even bytes has a standard deviation of 104.5; full noise is one of 9 levels.
        values += (grain[0] - grain[1]) * np.float32(noise * 9 / 104.5)
    return Image.fromarray((values + np.float32(0.5)).clip(0, 255).astype(np.uint8))
