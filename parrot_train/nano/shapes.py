"""The 28 kinds of things, each a short drawing with a silhouette of its own.

Every function draws one kind with a :class:`~parrot_train.nano.pen.Pen`. Size and centre need no care there: they are
measured from the drawing afterwards. The own colour must cover most of the thing; fixed colours are for small details.
"""

from collections.abc import Callable

from parrot_train.nano import shapes_living as living
from parrot_train.nano import shapes_made as made
from parrot_train.nano.pen import Pen

_DRAWINGS = (
    *(living.apple, living.banana, living.pear, living.lemon),
    *(living.cat, living.fish, living.bird, living.butterfly),
    *(made.car, made.bus, made.boat, made.airplane),
    *(made.cup, made.lamp, made.chair, made.bottle),
    *(made.hat, made.shirt, made.shoe, made.sock),
    *(living.tree, living.flower, living.cactus, living.leaf),
    *(made.ball, made.kite, made.drum, made.balloon),
)

SHAPES: dict[str, Callable[[Pen], None]] = {drawing.__name__: drawing for drawing in _DRAWINGS}
