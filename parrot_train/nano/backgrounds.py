"""Six backgrounds, pale or plain enough that every thing stands out, and varied by the scene's own random numbers.

Each fills a square canvas of ``pixels``. Coordinates are fractions of the picture (0 left or top, 1 right or bottom).
Nothing here may look like one of the kinds: no trees, no clouds, no flowers with a face.
"""

import functools
import itertools
import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter

RGB = tuple[int, int, int]


@functools.lru_cache(maxsize=256)
def _gradient(stops: tuple[tuple[float, RGB], ...], pixels: int) -> Image.Image:
    """Colours going smoothly from the top (0) to the bottom (1); ``pixels`` square, RGB."""
    column = Image.new("RGB", (1, 256))
    for row in range(256):
        column.putpixel((0, row), _mix(stops, row / 255))
    return column.resize((pixels, pixels), Image.Resampling.BILINEAR)


def _mix(stops: tuple[tuple[float, RGB], ...], place: float) -> RGB:
    for (low, first), (high, second) in itertools.pairwise(stops):
        if place <= high:
            t = max(0.0, (place - low) / (high - low))
            return tuple(round(a + (b - a) * t) for a, b in zip(first, second, strict=True))
    return stops[-1][1]


def _ridge(chance: random.Random, height: float, swing: float, waves: float) -> Callable[[float], float]:
    """A gently waved line: the height (fraction of the picture) at each x."""
    phases = [chance.uniform(0, 2 * math.pi) for _ in range(2)]
    return lambda x: (
        height
        + swing
        * (0.7 * math.sin(2 * math.pi * waves * x + phases[0]) + 0.3 * math.sin(4.6 * math.pi * waves * x + phases[1]))
    )


def _ground(draw: ImageDraw.ImageDraw, pixels: int, line: Callable[[float], float], colour: RGB) -> None:
    """Everything below the line in one colour."""
    top = [(pixels * i / 24, pixels * line(i / 24)) for i in range(25)]
    draw.polygon([*top, (pixels, pixels), (0, pixels)], fill=colour)


def _scatter(chance: random.Random, count: int, top: float, bottom: float) -> list[tuple[float, float]]:
    return [(chance.random(), chance.uniform(top, bottom)) for _ in range(count)]


@functools.lru_cache(maxsize=8)
def _glow(pixels: int) -> Image.Image:
    """A soft round light, as a mask (L)."""
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).ellipse((20, 20, 43, 43), fill=150)
    return mask.filter(ImageFilter.GaussianBlur(8)).resize((pixels, pixels), Image.Resampling.BICUBIC)


def _shine(canvas: Image.Image, x: float, y: float, colour: RGB) -> None:
    """Lay the soft light on the canvas, about (x, y)."""
    pixels = canvas.width
    reach = round(pixels * 0.9)
    canvas.paste(colour, (round(x * pixels - reach / 2), round(y * pixels - reach / 2)), _glow(reach))


def meadow(pixels: int, chance: random.Random) -> Image.Image:
    """Pale sky, two green hills, blades of grass."""
    canvas = _gradient(((0.0, (178, 214, 240)), (0.5, (232, 243, 244))), pixels).copy()
    draw = ImageDraw.Draw(canvas)
    height = chance.uniform(0.34, 0.5)
    _ground(draw, pixels, _ridge(chance, height, 0.04, chance.uniform(0.7, 1.2)), (182, 218, 150))
    _ground(draw, pixels, _ridge(chance, height + 0.16, 0.03, chance.uniform(0.6, 1.1)), (160, 206, 128))
    _ground(draw, pixels, _ridge(chance, height + 0.34, 0.03, chance.uniform(0.6, 1.1)), (144, 194, 114))
    unit = pixels / 192
    for x, y in _scatter(chance, 34, height + 0.2, 1.0):
        for lean in (-1.5, 0.3, 1.8):
            draw.line(
                (x * pixels, y * pixels, (x * pixels) + lean * unit, y * pixels - 3.4 * unit),
                (118, 172, 92),
                round(unit),
            )
    return canvas


def beach(pixels: int, chance: random.Random) -> Image.Image:
    """Sky, a sea with foam lines, wet and dry sand."""
    sea, shore = chance.uniform(0.2, 0.32), chance.uniform(0.52, 0.68)
    stops = ((0.0, (196, 226, 244)), (sea, (232, 244, 248)), (sea + 0.004, (98, 184, 206)), (shore, (158, 222, 222)))
    canvas = _gradient(tuple((round(place, 3), colour) for place, colour in stops), pixels).copy()
    draw = ImageDraw.Draw(canvas)
    waves = chance.uniform(0.5, 1.0)
    line = _ridge(chance, shore, 0.022, waves)
    _ground(draw, pixels, line, (246, 250, 248))
    _ground(draw, pixels, lambda x: line(x) + 0.018, (214, 190, 148))
    _ground(draw, pixels, lambda x: line(x) + 0.06, (240, 222, 180))
    unit = pixels / 192
    for x, y in _scatter(chance, 9, sea + 0.05, shore - 0.06):
        reach = chance.uniform(5, 12) * unit
        draw.line((x * pixels - reach, y * pixels, x * pixels + reach, y * pixels), (190, 232, 234), round(1.2 * unit))
    for x, y in _scatter(chance, 40, shore + 0.11, 1.0):
        draw.rectangle((x * pixels, y * pixels, x * pixels + unit, y * pixels + unit), (222, 200, 156))
    return canvas


def snow(pixels: int, chance: random.Random) -> Image.Image:
    """A grey-blue sky, pale drifts, falling flakes."""
    canvas = _gradient(((0.0, (142, 164, 190)), (0.6, (196, 210, 224))), pixels).copy()
    draw = ImageDraw.Draw(canvas)
    height = chance.uniform(0.42, 0.56)
    _ground(draw, pixels, _ridge(chance, height, 0.04, chance.uniform(0.6, 1.1)), (205, 218, 232))
    _ground(draw, pixels, _ridge(chance, height + 0.14, 0.03, chance.uniform(0.5, 1.0)), (215, 226, 238))
    _ground(draw, pixels, _ridge(chance, height + 0.3, 0.03, chance.uniform(0.5, 1.0)), (225, 233, 242))
    for x, y in _scatter(chance, 46, 0.0, height + 0.1):
        radius = pixels / 192 * chance.uniform(0.7, 1.7)
        draw.ellipse(
            (x * pixels - radius, y * pixels - radius, x * pixels + radius, y * pixels + radius), (244, 248, 252)
        )
    return canvas


def night(pixels: int, chance: random.Random) -> Image.Image:
    """A dark blue sky, small stars, the glow of a moon outside the picture, dark ground."""
    canvas = _gradient(((0.0, (22, 28, 66)), (0.75, (58, 66, 118)), (1.0, (66, 72, 122))), pixels).copy()
    _shine(canvas, chance.uniform(0.1, 0.9), chance.uniform(-0.06, 0.1), (196, 204, 240))
    draw = ImageDraw.Draw(canvas)
    for x, y in _scatter(chance, 44, 0.0, 0.72):
        radius = pixels / 192 * chance.uniform(0.4, 1.0)
        draw.ellipse(
            (x * pixels - radius, y * pixels - radius, x * pixels + radius, y * pixels + radius), (226, 230, 250)
        )
    height = chance.uniform(0.7, 0.8)
    _ground(draw, pixels, _ridge(chance, height, 0.03, chance.uniform(0.6, 1.1)), (40, 48, 88))
    _ground(draw, pixels, _ridge(chance, height + 0.12, 0.025, chance.uniform(0.6, 1.1)), (30, 36, 70))
    return canvas


def desert(pixels: int, chance: random.Random) -> Image.Image:
    """A warm sky and dunes with wind lines."""
    canvas = _gradient(((0.0, (250, 214, 178)), (0.5, (253, 238, 212))), pixels).copy()
    _shine(canvas, chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.3), (255, 250, 226))
    draw = ImageDraw.Draw(canvas)
    height = chance.uniform(0.4, 0.54)
    colours = ((232, 198, 150), (224, 186, 134), (214, 174, 120))
    for colour, lower in zip(colours, (0.0, 0.15, 0.33), strict=True):
        line = _ridge(chance, height + lower, 0.045, chance.uniform(0.6, 1.2))
        _ground(draw, pixels, line, colour)
        shade = tuple(part - 12 for part in colour)
        for drop in (0.05, 0.085) if lower else ():
            path = [(pixels * (0.1 + 0.8 * i / 16), pixels * (line(0.1 + 0.8 * i / 16) + drop)) for i in range(17)]
            draw.line(path, shade, round(pixels / 192 * 1.2))
    return canvas


def room(pixels: int, chance: random.Random) -> Image.Image:
    """A plain wall with faint stripes, a skirting board, a floor of boards."""
    walls = ((226, 220, 232), (216, 228, 226), (234, 226, 212), (214, 222, 236))
    wall = chance.choice(walls)
    canvas = Image.new("RGB", (pixels, pixels), wall)
    draw = ImageDraw.Draw(canvas)
    floor = chance.uniform(0.58, 0.74)
    stripe = tuple(part - 8 for part in wall)
    step = chance.uniform(0.07, 0.12)
    for i in range(math.ceil(1 / step)):
        draw.rectangle((pixels * i * step, 0, pixels * (i + 0.5) * step, pixels), stripe)
    board = pixels * floor
    draw.rectangle((0, board, pixels, pixels), (206, 174, 138))
    rows = [floor + (1 - floor) * part for part in (0.0, 0.2, 0.44, 0.7, 1.0)]
    for top, bottom in itertools.pairwise(rows):
        tint = chance.randint(-7, 7)
        draw.rectangle((0, pixels * top, pixels, pixels * bottom), (206 + tint, 174 + tint, 138 + tint))
        draw.line((0, pixels * bottom, pixels, pixels * bottom), (182, 148, 112), round(pixels / 192))
        for seam in (chance.uniform(0.05, 0.45), chance.uniform(0.55, 0.95)):
            draw.line(
                (pixels * seam, pixels * top, pixels * seam, pixels * bottom), (182, 148, 112), round(pixels / 192)
            )
    draw.rectangle((0, board - pixels * 0.035, pixels, board), (248, 245, 240))
    draw.line((0, board, pixels, board), (166, 134, 104), round(pixels / 192 * 1.2))
    return canvas


BACKGROUND_PAINTERS: dict[str, Callable[[int, random.Random], Image.Image]] = {
    "meadow": meadow,
    "beach": beach,
    "snow": snow,
    "night": night,
    "desert": desert,
    "room": room,
}
