"""Fruit, animals and plants: one function draws one kind, see :mod:`parrot_train.nano.shapes`."""

import math

from parrot_train.nano.pen import (
    AMBER,
    INK,
    SAGE,
    WHITE,
    WOOD,
    Pen,
    blob,
    box,
    curve,
    mirror,
    oval,
    rounded,
    symmetric,
    turn,
)


def _eye(pen: Pen, x: float, y: float, radius: float, look: float = 0.0) -> None:
    pen.paint(oval(x, y, radius, radius), colour=WHITE)
    pen.paint(oval(x + look * radius, y, radius * 0.6, radius * 0.6), colour=INK, edge=False)


def apple(pen: Pen) -> None:
    pen.limb(curve([(0, -0.5), (0.02, -0.85), (0.14, -1.08)]), width=0.13, colour=WOOD)
    pen.paint(blob([(0.1, -0.8), (0.3, -1.1), (0.66, -1.12), (0.48, -0.82)]), colour=SAGE)
    half = [(0, -0.56), (0.36, -0.78), (0.8, -0.6), (0.92, -0.08), (0.72, 0.52), (0.36, 0.86), (0, 0.76)]
    pen.fill(symmetric(half))
    pen.trace(curve([(-0.22, -0.56), (0, -0.46), (0.22, -0.56)]))
    pen.fill(oval(-0.5, -0.28, 0.12, 0.24, 24), tone=225, edge=False)


def banana(pen: Pen) -> None:
    def along(t: float, out: float) -> tuple[float, float]:
        angle = math.radians(2 + 146 * t)
        reach = 0.86 + out * (0.09 + 0.25 * math.sin(math.pi * t) ** 0.8)
        return reach * math.cos(angle), reach * 0.95 * math.sin(angle)

    steps = [i / 24 for i in range(25)]
    body = [along(t, 1) for t in steps] + [along(t, -1) for t in reversed(steps)]
    pen.limb(turn([along(0, 0), (0.9, -0.2)], 20), width=0.17, colour=WOOD)
    pen.fill(turn(body, 20))
    pen.paint(oval(*turn([along(1, 0)], 20)[0], 0.09, 0.09), colour=WOOD, edge=False)
    pen.trace(turn([along(t, 0.15) for t in steps[3:22]], 20), tone=70)
    pen.trace(turn([along(t, 0.6) for t in steps[9:16]], 20), weight=1.6, tone=215)


def pear(pen: Pen) -> None:
    pen.limb(curve([(0, -0.8), (0.03, -1.0), (0.14, -1.18)]), width=0.12, colour=WOOD)
    pen.paint(blob([(0.08, -0.98), (0.26, -1.2), (0.54, -1.2), (0.36, -0.98)]), colour=SAGE)
    half = [(0, -0.9), (0.25, -0.8), (0.33, -0.45), (0.46, -0.12), (0.7, 0.25), (0.7, 0.66), (0.4, 0.96), (0, 1.0)]
    pen.fill(symmetric(half))
    pen.fill(oval(-0.36, 0.3, 0.11, 0.22, 18), tone=225, edge=False)


def lemon(pen: Pen) -> None:
    pen.paint(turn(blob([(0.62, -0.52), (0.62, -0.86), (0.98, -1.06), (0.98, -0.7)]), -12), colour=SAGE)
    half = [
        (0.4, -0.68),
        (0.78, -0.42),
        (0.96, -0.19),
        (1.16, -0.15),
        (1.2, 0),
        (1.16, 0.15),
        (0.96, 0.19),
        (0.78, 0.42),
    ]
    upright = [(0, -0.76), *half, (0.4, 0.68), (0, 0.76)]
    pen.fill(turn(blob([*upright, *[(-x, y) for x, y in reversed(upright[1:-1])]]), -12))
    for x, y in ((0.5, 0.22), (0.3, 0.42), (0.66, -0.02), (0.1, 0.2), (0.36, 0.02), (-0.04, 0.46)):
        pen.fill(oval(x, y, 0.035, 0.035), tone=64, edge=False)
    pen.fill(turn(oval(-0.4, -0.36, 0.24, 0.12, -32), -12), tone=230, edge=False)


def cat(pen: Pen) -> None:
    pen.limb(curve([(0.3, 0.86), (0.86, 0.82), (0.98, 0.42), (0.82, 0.12)]), width=0.21)
    pen.fill(symmetric([(0, -0.2), (0.36, 0.0), (0.56, 0.55), (0.5, 0.96), (0, 1.02)]))
    pen.trace([(-0.15, 0.6), (-0.15, 0.98)], [(0.15, 0.6), (0.15, 0.98)])
    ear = rounded([(-0.66, -0.4), (-0.64, -1.12), (-0.06, -0.72)], 0.12)
    head = oval(0, -0.36, 0.68, 0.5)
    pen.fill(head, ear, mirror(ear))
    inner = rounded([(-0.53, -0.68), (-0.53, -0.9), (-0.33, -0.76)], 0.05)
    pen.paint(inner, mirror(inner), colour=(226, 170, 170), edge=False)
    for x in (-0.28, 0.28):
        pen.paint(oval(x, -0.42, 0.12, 0.14), colour=WHITE)
        pen.paint(oval(x, -0.42, 0.065, 0.12), colour=INK, edge=False)
    pen.paint(rounded([(-0.09, -0.23), (0.09, -0.23), (0, -0.13)], 0.03), colour=(226, 150, 150))
    pen.trace(curve([(-0.16, -0.04), (-0.06, -0.03), (0, -0.12), (0.06, -0.03), (0.16, -0.04)]), weight=0.8)


def fish(pen: Pen) -> None:
    pen.fill(blob([(0.5, 0), (0.8, -0.44), (1.14, -0.56), (1.0, 0), (1.14, 0.56), (0.8, 0.44)]), tone=100)
    pen.fill(blob([(-0.36, -0.4), (-0.08, -0.86), (0.42, -0.74), (0.36, -0.3)]), tone=100)
    pen.fill(blob([(-0.12, 0.4), (0.06, 0.78), (0.36, 0.72), (0.34, 0.3)]), tone=100)
    pen.fill(
        blob(
            [
                (-1.0, 0.02),
                (-0.7, -0.38),
                (-0.16, -0.56),
                (0.38, -0.36),
                (0.72, 0),
                (0.38, 0.36),
                (-0.16, 0.54),
                (-0.7, 0.38),
            ]
        )
    )
    pen.trace(curve([(-0.42, -0.4), (-0.28, 0), (-0.42, 0.4)]))
    for x, y in ((-0.04, -0.16), (-0.04, 0.18), (0.26, 0.0)):
        pen.trace(curve([(x, y - 0.13), (x + 0.1, y), (x, y + 0.13)]), weight=0.8)
    _eye(pen, -0.64, -0.12, 0.13, -0.2)


def bird(pen: Pen) -> None:
    pen.limb(
        [(-0.12, 0.5), (-0.16, 0.98), (0.06, 0.98)], [(0.18, 0.5), (0.16, 0.98), (0.38, 0.98)], width=0.08, colour=WOOD
    )
    pen.paint(rounded([(0.7, -0.6), (1.18, -0.36), (0.7, -0.22)], 0.05), colour=AMBER)
    pen.fill(rounded([(-0.4, 0.2), (-1.0, -0.42), (-1.2, -0.18), (-1.1, 0.1), (-0.6, 0.5)], 0.12), tone=110)
    pen.fill(oval(0.0, 0.18, 0.72, 0.5, -12), oval(0.5, -0.38, 0.38, 0.36))
    pen.fill(blob([(0.24, 0.04), (-0.06, -0.1), (-0.52, 0.1), (-0.82, 0.36), (-0.34, 0.5), (0.14, 0.42)]), tone=106)
    pen.trace(curve([(-0.5, 0.28), (-0.2, 0.3), (0.04, 0.2)]), weight=0.8)
    _eye(pen, 0.58, -0.46, 0.12, 0.2)


def butterfly(pen: Pen) -> None:
    antenna = curve([(0.04, -0.5), (0.14, -0.82), (0.36, -0.96)])
    pen.limb(antenna, mirror(antenna), width=0.06, colour=INK)
    lower = blob([(0.04, 0.1), (0.52, 0.06), (0.8, 0.36), (0.64, 0.8), (0.3, 0.78), (0.08, 0.4)])
    upper = blob([(0.04, -0.1), (0.3, -0.62), (0.8, -0.92), (1.08, -0.68), (0.96, -0.14), (0.5, 0.12), (0.06, 0.1)])
    pen.fill(lower, mirror(lower), tone=108)
    pen.fill(upper, mirror(upper))
    spots = [oval(0.74, -0.5, 0.16, 0.16), oval(0.5, 0.46, 0.13, 0.13)]
    pen.fill(*spots, *[mirror(spot) for spot in spots], tone=225, edge=False)
    pen.paint(oval(0, 0, 0.1, 0.62), colour=INK)


def tree(pen: Pen) -> None:
    pen.paint(
        rounded([(-0.3, 1.1), (-0.16, 0.8), (-0.15, 0.2), (0.15, 0.2), (0.16, 0.8), (0.3, 1.1)], 0.1), colour=WOOD
    )
    pen.fill(
        oval(0, -0.62, 0.5, 0.48), oval(-0.48, -0.16, 0.5, 0.46), oval(0.48, -0.16, 0.5, 0.46), oval(0, 0.02, 0.5, 0.44)
    )
    pen.trace(curve([(-0.5, -0.5), (-0.26, -0.4), (-0.06, -0.16)]), curve([(0.5, -0.5), (0.28, -0.42), (0.16, -0.3)]))
    pen.trace(curve([(0.0, 0.26), (0.24, 0.24), (0.42, 0.08)]))
    pen.fill(oval(-0.2, -0.8, 0.17, 0.12, -30), tone=215, edge=False)


def flower(pen: Pen) -> None:
    pen.limb(curve([(0, -0.2), (0.03, 0.4), (0, 1.16)]), width=0.11, colour=SAGE)
    pen.paint(blob([(0.02, 0.94), (0.2, 0.58), (0.6, 0.5), (0.4, 0.86)]), colour=SAGE)
    petals = [[(x, y - 0.36) for x, y in turn(oval(0, -0.46, 0.27, 0.35), angle)] for angle in range(0, 360, 60)]
    for petal in petals:
        pen.fill(petal)
    pen.paint(oval(0, -0.36, 0.24, 0.24), colour=(150, 100, 50))


def cactus(pen: Pen) -> None:
    pen.limb(curve([(0.1, 0.36), (0.62, 0.3), (0.7, -0.02), (0.7, -0.4)]), width=0.32)
    pen.limb(curve([(-0.1, 0.1), (-0.62, 0.06), (-0.7, -0.26), (-0.7, -0.56)]), width=0.32)
    pen.fill(box(-0.28, -1.1, 0.28, 1.06, 0.36))
    pen.fill(box(-0.1, 0.2, 0.4, 0.52, 0.05), box(-0.4, -0.06, 0.1, 0.26, 0.05), edge=False)
    pen.trace([(-0.09, -0.86), (-0.09, 1.0)], [(0.1, -0.86), (0.1, 1.0)], tone=76)
    for x, y in ((0, -0.6), (0, -0.1), (0, 0.4), (0, 0.84), (0.7, -0.3), (-0.7, -0.46), (0.62, 0.2), (-0.62, -0.04)):
        pen.fill(oval(x, y, 0.045, 0.06), tone=235, edge=False)


def leaf(pen: Pen) -> None:
    def bent(points: list) -> list:
        return turn(points, 35)

    pen.limb(bent(curve([(0, 0.6), (0, 0.95), (0.1, 1.3)])), width=0.11, tone=84)
    pen.fill(
        bent(
            [
                *curve([(0, -1.12), (0.5, -0.5), (0.62, 0.1), (0.36, 0.6), (0, 0.86)]),
                *reversed(curve([(0, -1.12), (-0.5, -0.5), (-0.62, 0.1), (-0.36, 0.6), (0, 0.86)])),
            ]
        )
    )
    pen.trace(bent([(0, -0.8), (0, 0.84)]), weight=1.2)
    for y in (-0.3, 0.05, 0.4):
        pen.trace(bent([(-0.36, y - 0.2), (0, y), (0.36, y - 0.2)]), weight=0.8)
