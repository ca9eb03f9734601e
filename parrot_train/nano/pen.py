"""A pen that draws a thing once, for every colour it may be given.

A thing is drawn in its own free coordinates (x right, y down, about [-1, 1]) as a painter would, far parts first. Parts
of the thing's own colour are kept as a *tone* (0 edge line, 64 shadow, 128 the plain colour, 255 light); details such
as wheels and stems are kept in fixed neutral colours. Which colour the tones stand for is decided later, so one drawing
serves all.
"""

import math

from PIL import Image, ImageDraw

Point = tuple[float, float]
Outline = list[Point]
RGB = tuple[int, int, int]

INK: RGB = (38, 34, 46)
# Fixed colours of details.
WHITE: RGB = (250, 250, 248)
CREAM: RGB = (246, 238, 220)
GLASS: RGB = (205, 226, 236)
STEEL: RGB = (150, 154, 164)
WOOD: RGB = (112, 80, 54)
SAGE: RGB = (98, 138, 84)
AMBER: RGB = (240, 176, 72)
TYRE: RGB = (58, 56, 66)

# Tones of a thing's own colour.
EDGE, SHADOW, PLAIN, LIGHT = 0, 64, 128, 255


def oval(cx: float, cy: float, rx: float, ry: float, turned: float = 0.0) -> Outline:
    """An ellipse about (cx, cy), turned clockwise by degrees."""
    steps = 48
    ring = [(rx * math.cos(2 * math.pi * i / steps), ry * math.sin(2 * math.pi * i / steps)) for i in range(steps)]
    return [(x + cx, y + cy) for x, y in turn(ring, turned)]


def box(x0: float, y0: float, x1: float, y1: float, radius: float) -> Outline:
    """A rectangle with rounded corners."""
    return rounded([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], radius)


def rounded(corners: Outline, radius: float) -> Outline:
    """A polygon whose corners are rounded, each by at most half of its shorter side."""
    outline = []
    for index, (x, y) in enumerate(corners):
        ends = []
        for px, py in (corners[index - 1], corners[(index + 1) % len(corners)]):
            length = math.hypot(px - x, py - y)
            part = min(radius / length, 0.5)
            ends.append((x + (px - x) * part, y + (py - y) * part))
        (ax, ay), (bx, by) = ends
        for step in range(9):
            t = step / 8
            keep, middle, reach = (1 - t) ** 2, 2 * t * (1 - t), t * t
            outline.append((keep * ax + middle * x + reach * bx, keep * ay + middle * y + reach * by))
    return outline


def blob(points: Outline) -> Outline:
    """A smooth closed curve through the points (Catmull-Rom)."""
    count = len(points)
    outline = []
    for i in range(count):
        outline += _bend(points[i - 1], points[i], points[(i + 1) % count], points[(i + 2) % count])
    return outline


def curve(points: Outline) -> Outline:
    """A smooth open curve through the points (Catmull-Rom, the ends doubled)."""
    padded = [points[0], *points, points[-1]]
    outline = []
    for i in range(len(points) - 1):
        outline += _bend(*padded[i : i + 4])
    return [*outline, points[-1]]


def _bend(a: Point, b: Point, c: Point, d: Point) -> Outline:
    outline = []
    for step in range(10):
        t = step / 10
        weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
        outline.append(
            tuple(sum(w * p[axis] for w, p in zip(weights, (a, b, c, d), strict=True)) / 2 for axis in (0, 1))
        )
    return outline


def mirror(points: Outline) -> Outline:
    """The points on the other side of the y axis."""
    return [(-x, y) for x, y in points]


def symmetric(right_half: Outline) -> Outline:
    """A smooth closed shape from its right half, top to bottom; points on the axis (x = 0) are not doubled."""
    return blob(right_half + [(-x, y) for x, y in reversed(right_half) if x != 0])


def turn(points: Outline, degrees: float) -> Outline:
    """The points turned clockwise about the origin."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


class Pen:
    """Draws one thing into four layers of ``pixels`` x ``pixels``.

    ``tone`` (L) and ``own`` (L, 255 where the tone holds) are the parts of the thing's own colour, ``fixed`` (RGB) the
    details, ``silhouette`` (L) everything. Coordinates are taken from ``centre`` and multiplied by ``scale`` pixels;
    ``line`` is the width of the edge line in pixels.
    """

    def __init__(self, pixels: int, scale: float, centre: Point, line: float):
        self.tone = Image.new("L", (pixels, pixels), PLAIN)
        self.own = Image.new("L", (pixels, pixels), 0)
        self.fixed = Image.new("RGB", (pixels, pixels), INK)
        self.silhouette = Image.new("L", (pixels, pixels), 0)
        self._draw = {name: ImageDraw.Draw(getattr(self, name)) for name in ("tone", "own", "fixed", "silhouette")}
        self._half, self._scale, self._centre, self._line = pixels / 2, scale, centre, line

    def fill(self, *shapes: Outline, tone: int = PLAIN, edge: bool = True) -> None:
        """Closed shapes of the own colour, joined into one; the edge line lies outside them, over older parts."""
        self._shapes(shapes, edge, {"tone": tone, "own": 255, "fixed": INK, "silhouette": 255})

    def paint(self, *shapes: Outline, colour: RGB, edge: bool = True) -> None:
        """Closed shapes of a fixed colour."""
        self._shapes(shapes, edge, {"own": 0, "fixed": colour, "silhouette": 255})

    def limb(
        self, *paths: Outline, width: float, tone: int = PLAIN, colour: RGB | None = None, edge: bool = True
    ) -> None:
        """Open paths drawn as rounded strokes, of the own colour or of a fixed one; ``width`` in unit coordinates."""
        inks = {"tone": tone, "own": 255, "fixed": INK} if colour is None else {"own": 0, "fixed": colour}
        paths = [self._place(path) for path in paths]
        pixels = width * self._scale
        for path in paths if edge else ():
            self._stroke(path, pixels + 2 * self._line, {"tone": EDGE, "own": 255})
        for path in paths:
            self._stroke(path, pixels, inks | {"silhouette": 255})

    def trace(self, *paths: Outline, weight: float = 1.0, tone: int = EDGE) -> None:
        """Open paths drawn as a thin line inside the thing, ``weight`` times the edge line."""
        for path in paths:
            self._stroke(self._place(path), self._line * weight, {"tone": tone, "own": 255})

    def _shapes(self, shapes: tuple[Outline, ...], edge: bool, inks: dict) -> None:
        placed = [self._place(shape) for shape in shapes]
        for shape in placed if edge else ():
            self._stroke([*shape, shape[0]], 2 * self._line, {"tone": EDGE, "own": 255})
        for layer, ink in inks.items():
            for shape in placed:
                self._draw[layer].polygon(shape, fill=ink)

    def _stroke(self, path: Outline, width: float, inks: dict) -> None:
        radius = width / 2
        for layer, ink in inks.items():
            self._draw[layer].line(path, fill=ink, width=max(1, round(width)), joint="curve")
            for x, y in (path[0], path[-1]):
                self._draw[layer].ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)

    def _place(self, points: Outline) -> Outline:
        cx, cy = self._centre
        return [((x - cx) * self._scale + self._half, (y - cy) * self._scale + self._half) for x, y in points]
