"""Vehicles, household things, clothes and toys: one function draws one kind, see :mod:`parrot_train.nano.shapes`."""

from parrot_train.nano.pen import (
    CREAM,
    GLASS,
    INK,
    STEEL,
    TYRE,
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


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.paint(oval(x, y, radius, radius), colour=TYRE)
    pen.paint(oval(x, y, radius * 0.42, radius * 0.42), colour=STEEL, edge=False)


def car(pen: Pen) -> None:
    cabin = rounded([(-0.72, 0), (-0.46, -0.62), (0.28, -0.62), (0.68, 0)], 0.22)
    pen.fill(box(-1.06, -0.1, 1.06, 0.44, 0.24), cabin)
    rear = rounded([(-0.54, -0.1), (-0.36, -0.48), (-0.1, -0.48), (-0.1, -0.1)], 0.08)
    front = rounded([(0.04, -0.1), (0.04, -0.48), (0.22, -0.48), (0.48, -0.1)], 0.08)
    pen.paint(rear, front, colour=GLASS)
    pen.trace([(-0.03, 0.02), (-0.03, 0.34)], [(0.08, 0.1), (0.2, 0.1)], weight=0.8)
    pen.paint(oval(0.94, 0.08, 0.08, 0.1), colour=CREAM)
    _wheel(pen, -0.56, 0.44, 0.25)
    _wheel(pen, 0.58, 0.44, 0.25)


def bus(pen: Pen) -> None:
    pen.fill(box(-1.08, -0.8, 1.08, 0.6, 0.2))
    windows = [box(x, -0.56, x + 0.36, -0.14, 0.06) for x in (-0.94, -0.48, -0.02)]
    pen.paint(*windows, colour=GLASS)
    pen.paint(box(0.5, -0.56, 0.92, 0.46, 0.06), colour=GLASS)
    pen.trace([(0.71, -0.56), (0.71, 0.46)])
    pen.trace([(-1.06, 0.08), (0.4, 0.08)], weight=1.4, tone=220)
    _wheel(pen, -0.62, 0.6, 0.23)
    _wheel(pen, 0.28, 0.6, 0.23)


def boat(pen: Pen) -> None:
    pen.limb([(0, 0.4), (0, -1.04)], width=0.1, colour=WOOD)
    pen.fill(rounded([(0.12, -1.0), (0.12, 0.22), (0.9, 0.22)], 0.1))
    pen.fill(rounded([(-0.12, -0.72), (-0.12, 0.22), (-0.72, 0.22)], 0.1), tone=172)
    pen.fill(rounded([(-1.06, 0.4), (1.06, 0.4), (0.66, 0.96), (-0.66, 0.96)], 0.22))
    pen.trace([(-0.86, 0.58), (0.86, 0.58)], weight=1.4, tone=220)


def airplane(pen: Pen) -> None:
    wing = rounded([(0.08, -0.3), (1.14, 0.34), (1.14, 0.6), (0.08, 0.32)], 0.14)
    tail = rounded([(0.06, 0.66), (0.46, 0.94), (0.46, 1.12), (0.06, 0.98)], 0.1)
    engine = box(0.44, -0.14, 0.64, 0.26, 0.1)
    parts = [(turn(part, 38), turn(mirror(part), 38)) for part in (engine, wing, tail)]
    pen.fill(*parts[0], tone=84)
    pen.fill(*parts[1], tone=112)
    pen.fill(*parts[2], tone=112)
    pen.fill(turn(symmetric([(0, -1.2), (0.17, -0.96), (0.22, -0.4), (0.2, 0.4), (0.1, 1.0), (0, 1.12)]), 38))
    glass = symmetric([(0, -1.0), (0.12, -0.88), (0.1, -0.74), (0, -0.76)])
    pen.paint(turn(glass, 38), colour=GLASS)


def cup(pen: Pen) -> None:
    pen.limb(curve([(0.4, -0.36), (0.86, -0.36), (0.94, 0.06), (0.7, 0.36), (0.3, 0.4)]), width=0.17)
    pen.fill(rounded([(-0.84, -0.62), (0.5, -0.62), (0.4, 0.84), (-0.74, 0.84)], 0.3), oval(-0.17, -0.62, 0.67, 0.2))
    pen.paint(oval(-0.17, -0.62, 0.54, 0.12), colour=(104, 78, 62))
    pen.fill(oval(-0.56, 0.1, 0.08, 0.34, -3), tone=225, edge=False)


def lamp(pen: Pen) -> None:
    pen.paint(oval(0, 0.0, 0.2, 0.2), colour=CREAM)
    pen.limb([(0, 0.1), (0, 0.86)], width=0.15, tone=96)
    pen.fill(rounded([(-0.5, 1.06), (-0.36, 0.8), (0.36, 0.8), (0.5, 1.06)], 0.12))
    pen.fill(rounded([(-0.42, -0.98), (0.42, -0.98), (0.86, 0.02), (-0.86, 0.02)], 0.12))
    pen.trace([(-0.74, -0.14), (0.74, -0.14)], tone=76, weight=1.3)
    pen.fill(rounded([(-0.32, -0.84), (-0.16, -0.84), (-0.38, -0.28), (-0.56, -0.28)], 0.06), tone=205, edge=False)


def chair(pen: Pen) -> None:
    pen.limb([(-0.5, 0.2), (-0.5, 0.84)], [(0.36, 0.2), (0.36, 0.84)], width=0.15, tone=84)
    pen.limb([(-0.5, -1.0), (-0.5, 0.1)], [(0.36, -1.0), (0.36, 0.1)], width=0.16)
    pen.fill(box(-0.44, -0.98, 0.3, -0.66, 0.06), box(-0.44, -0.46, 0.3, -0.22, 0.06))
    pen.limb([(-0.36, 0.4), (-0.36, 1.08)], [(0.68, 0.4), (0.68, 1.08)], width=0.17)
    pen.fill(
        rounded([(-0.62, 0.02), (0.46, 0.02), (0.82, 0.36), (0.82, 0.52), (-0.48, 0.52), (-0.48, 0.36)], 0.08), tone=100
    )
    pen.fill(rounded([(-0.62, 0.0), (0.46, 0.0), (0.82, 0.34), (-0.48, 0.34)], 0.08), edge=False, tone=160)


def bottle(pen: Pen) -> None:
    pen.paint(box(-0.17, -1.22, 0.17, -0.98, 0.06), colour=WOOD)
    half = [(0.16, -1.0), (0.16, -0.56), (0.46, -0.22), (0.46, 1.1)]
    pen.fill(rounded([*half, *[(-x, y) for x, y in reversed(half)]], 0.2))
    pen.trace([(-0.16, -0.78), (0.16, -0.78)])
    pen.fill(box(-0.46, 0.1, 0.46, 0.74, 0.02), tone=160)
    pen.trace([(-0.24, 0.34), (0.24, 0.34)], [(-0.24, 0.52), (0.24, 0.52)], tone=90)
    pen.fill(oval(-0.27, -0.12, 0.07, 0.16, 20), tone=230, edge=False)


def hat(pen: Pen) -> None:
    pen.fill(oval(0, 0.56, 1.1, 0.3))
    pen.fill(rounded([(-0.66, -0.86), (0.66, -0.86), (0.56, 0.56), (-0.56, 0.56)], 0.1), oval(0, 0.54, 0.56, 0.14))
    band = [(-0.6, 0.2), (0, 0.3), (0.6, 0.2)]
    pen.paint([*curve(band), *reversed(curve([(-0.56, 0.5), (0, 0.62), (0.56, 0.5)]))], colour=(196, 188, 176))
    pen.fill(oval(0, -0.86, 0.66, 0.16), tone=176)


def shirt(pen: Pen) -> None:
    pen.fill(blob([(-0.34, -0.86), (0, -0.93), (0.34, -0.86), (0.22, -0.56), (0, -0.48), (-0.22, -0.56)]), tone=64)
    half = [(0.34, -0.86), (0.68, -0.74), (1.12, -0.14), (0.78, 0.16), (0.56, -0.08), (0.58, 0.94)]
    neck = curve([(-0.34, -0.86), (-0.2, -0.62), (0, -0.54), (0.2, -0.62), (0.34, -0.86)])
    pen.fill([*neck[1:-1], *rounded([*half, *[(-x, y) for x, y in reversed(half)]], 0.06)])
    pen.trace(curve([(-0.48, -0.82), (-0.28, -0.52), (0, -0.42), (0.28, -0.52), (0.48, -0.82)]), weight=0.9)
    pen.trace([(0.56, -0.36), (0.56, 0.0)], [(-0.56, -0.36), (-0.56, 0.0)], weight=0.9)
    pen.trace([(-0.56, 0.76), (0.56, 0.76)], tone=84)


def shoe(pen: Pen) -> None:
    upper = [
        (-1.0, -0.52),
        (-0.72, -0.64),
        (-0.36, -0.44),
        (0.02, -0.66),
        (0.2, -0.5),
        (0.52, -0.08),
        (1.04, 0.1),
        (1.12, 0.5),
        (-1.02, 0.5),
    ]
    pen.fill(rounded(upper, 0.2))
    pen.fill(rounded([(0.6, 0.42), (0.66, 0.1), (1.02, 0.16), (1.1, 0.42)], 0.1), tone=170)
    pen.fill(rounded([(-0.98, 0.42), (-0.94, -0.1), (-0.62, 0.06), (-0.52, 0.42)], 0.1), tone=92)
    for x, y in ((0.06, -0.36), (0.22, -0.18), (0.38, 0.0)):
        pen.limb([(x, y), (x - 0.26, y + 0.1)], width=0.09, colour=CREAM)
    pen.paint(box(-1.08, 0.42, 1.2, 0.68, 0.12), colour=CREAM)


def sock(pen: Pen) -> None:
    pen.fill(
        rounded([(-0.46, -0.9), (0.3, -0.9), (0.3, 0.06), (0.98, 0.36), (1.0, 0.94), (-0.2, 0.94), (-0.52, 0.5)], 0.34)
    )
    pen.fill(blob([(-0.5, 0.32), (-0.14, 0.5), (-0.12, 0.92), (-0.4, 0.8), (-0.52, 0.56)]), tone=76)
    pen.fill(blob([(0.74, 0.34), (0.62, 0.62), (0.72, 0.92), (0.94, 0.86), (1.02, 0.64), (0.96, 0.42)]), tone=76)
    pen.trace([(-0.46, -0.3), (0.3, -0.3)], [(-0.46, -0.1), (0.3, -0.1)], weight=1.6, tone=220)
    pen.fill(box(-0.54, -1.06, 0.38, -0.66, 0.12), tone=164)
    pen.trace(*[[(x, -1.0), (x, -0.72)] for x in (-0.3, -0.08, 0.14)], weight=0.8)


def ball(pen: Pen) -> None:
    pen.fill(oval(0, 0, 1, 1))
    middle = curve([(-0.97, 0.26), (-0.4, 0.06), (0.3, -0.26), (0.84, -0.54)])
    pen.trace(middle, weight=1.3)
    pen.trace(curve([(-0.28, -0.96), (-0.1, -0.3), (0.12, 0.3), (0.42, 0.9)]), weight=1.3)
    pen.trace(curve([(0.5, -0.86), (0.3, -0.26), (0.5, 0.26), (0.96, 0.3)]), weight=1.3)
    pen.trace(curve([(-0.9, -0.42), (-0.44, -0.3), (-0.34, 0.3), (-0.52, 0.84)]), weight=1.3)
    pen.fill(oval(-0.44, -0.6, 0.2, 0.12, -40), tone=225, edge=False)


def kite(pen: Pen) -> None:
    top, right, bottom, left, cross = (0.36, -1.14), (0.98, -0.2), (-0.42, 0.64), (-0.62, -0.72), (0.16, -0.46)
    pen.limb(curve([bottom, (-0.12, 0.8), (0.14, 0.66), (0.4, 0.84), (0.66, 0.72)]), width=0.05, colour=INK)
    for x, y, angle in ((0.02, 0.7, -20), (0.48, 0.82, 10)):
        halves = [turn([(0, 0), (side * 0.2, -0.15), (side * 0.2, 0.15)], angle) for side in (-1, 1)]
        pen.fill(*[[(px + x, py + y) for px, py in half] for half in halves])
    pen.fill(rounded([top, right, bottom, left], 0.06))
    pen.fill([top, right, cross], [left, bottom, cross], tone=148, edge=False)
    pen.trace([top, bottom], [left, right], weight=1.2)


def drum(pen: Pen) -> None:
    pen.limb([(-0.3, -0.5), (0.5, -1.16)], [(0.3, -0.5), (-0.5, -1.16)], width=0.1, colour=(188, 144, 96))
    pen.fill([(-0.94, -0.36), (0.94, -0.36), (0.94, 0.66), (-0.94, 0.66)], oval(0, 0.66, 0.94, 0.32))
    zigzag = [(-0.94, 0.6), (-0.62, -0.1), (-0.32, 0.86), (0, 0.0), (0.32, 0.86), (0.62, -0.1), (0.94, 0.6)]
    pen.trace(zigzag, weight=1.5, tone=225)
    pen.fill(oval(0, -0.26, 0.98, 0.32), oval(0, -0.38, 0.98, 0.32), tone=92)
    pen.paint(oval(0, -0.38, 0.84, 0.24), colour=CREAM)


def balloon(pen: Pen) -> None:
    pen.limb(curve([(0, 0.5), (0.14, 0.74), (-0.12, 0.98), (0.08, 1.26)]), width=0.05, colour=INK)
    pen.fill(rounded([(0, 0.3), (0.15, 0.56), (-0.15, 0.56)], 0.05))
    pen.fill(symmetric([(0, -1.16), (0.5, -0.98), (0.74, -0.48), (0.56, 0.04), (0.2, 0.36), (0, 0.42)]))
    pen.fill(oval(-0.36, -0.68, 0.12, 0.25, 24), tone=235, edge=False)
