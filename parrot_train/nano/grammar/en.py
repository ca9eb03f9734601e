"""English."""

from collections.abc import Sequence

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, KINDS, Group

PLURALS = {kind: kind + "s" for kind in KINDS} | {
    "fish": "fish",
    "butterfly": "butterflies",
    "bus": "buses",
    "leaf": "leaves",
    "cactus": "cacti",
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
PLACES = dict(
    zip(
        CELLS,
        (
            "in the top left",
            "at the top",
            "in the top right",
            "on the left",
            "in the centre",
            "on the right",
            "in the bottom left",
            "at the bottom",
            "in the bottom right",
        ),
        strict=True,
    )
)
SCENERY = {
    "meadow": ("a meadow", "in a meadow"),
    "beach": ("a beach", "on a beach"),
    "snow": ("snow", "in the snow"),
    "night": ("a night sky", "under a night sky"),
    "desert": ("a desert", "in a desert"),
    "room": ("a room", "in a room"),
}
CLASS_NAMES = {
    "fruit": "a fruit",
    "animal": "an animal",
    "vehicle": "a vehicle",
    "household": "a household item",
    "clothing": "an item of clothing",
    "plant": "a plant",
    "toy": "a toy",
}
BESIDE = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


class English(Grammar):
    code = "en"
    background_word = "Background"

    def phrase(self, group: Group, *, size: bool = False) -> str:
        words = f"{group.size} " if size else ""
        words += f"{group.colour} "
        if group.count == 1:
            return _with_article(words + group.kind)
        return f"{NUMBERS[group.count]} {words}{PLURALS[group.kind]}"

    def one(self, kind: str) -> str:
        return _with_article(kind)

    def the(self, kind: str, count: int = 1) -> str:
        return f"the {kind if count == 1 else PLURALS[kind]}"

    def colour_of(self, group: Group, colour: str) -> str:
        return colour

    def size_of(self, group: Group, size: str) -> str:
        return size

    def number_of(self, kind: str | None, count: int) -> str:
        return NUMBERS[count]

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return self.sentence(f"{self.listing(groups, size=True)} {SCENERY[background][1]}")

    def object(self) -> Sequence[str]:
        return ("What is in the picture?", "What can you see in the image?")

    def describe(self) -> Sequence[str]:
        return ("Describe the picture.", "Write a short description of the image.")

    def describe_places(self) -> str:
        return "Describe the picture and say where everything is."

    def which_present(self) -> str:
        return "Which of these is in the picture?"

    def absent(self) -> str:
        return "Which of these is not in the picture?"

    def colour(self, group: Group) -> str:
        return f"What colour {'is' if group.count == 1 else 'are'} {self.the(group.kind, group.count)}?"

    def count(self, kind: str) -> str:
        return f"How many {PLURALS[kind]} are there in the picture?"

    def total(self) -> str:
        return "How many things are there in the picture in all?"

    def position(self, kind: str) -> str:
        return f"Where is the {kind}?"

    def at_position(self, cell: int) -> str:
        return f"What is {PLACES[CELLS[cell]]} of the picture?"

    def with_colour(self, colour: str) -> str:
        return f"What in the picture is {colour}?"

    def size(self, group: Group) -> str:
        return f"{'Is' if group.count == 1 else 'Are'} {self.the(group.kind, group.count)} large or small?"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        return f"Which is {'larger' if larger else 'smaller'}, the {first} or the {second}?"

    def existence(self, kind: str) -> str:
        return f"Is there {_with_article(kind)} in the picture?"

    def class_existence(self, name: str) -> str:
        return f"Is there {CLASS_NAMES[name]} in the picture?"

    def background(self) -> str:
        return "What is the background of the picture?"

    def class_member(self, name: str) -> str:
        return f"Which {CLASS_NAMES[name].split(' ', 1)[1]} is in the picture?"

    def beside(self, direction: str, kind: str) -> str:
        return f"What is {BESIDE[direction]} the {kind}?"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        return f"Is the {first} {BESIDE[direction]} the {second}?"

    def is_colour(self, group: Group, colour: str) -> str:
        return f"{'Is' if group.count == 1 else 'Are'} {self.the(group.kind, group.count)} {colour}?"

    def same_colour(self, first: str, second: str) -> str:
        return f"Are the {first} and the {second} the same colour?"

    def more(self, first: str, second: str) -> str:
        return f"Are there more {PLURALS[first]} than {PLURALS[second]}?"
