"""German: three genders, adjective endings, the dative after directions; one as an article (ein) and alone (einer)."""

from collections.abc import Sequence

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, Group

# kind: (gender, singular, plural)
NOUNS = {
    "apple": ("m", "Apfel", "Äpfel"),
    "banana": ("f", "Banane", "Bananen"),
    "pear": ("f", "Birne", "Birnen"),
    "lemon": ("f", "Zitrone", "Zitronen"),
    "cat": ("f", "Katze", "Katzen"),
    "fish": ("m", "Fisch", "Fische"),
    "bird": ("m", "Vogel", "Vögel"),
    "butterfly": ("m", "Schmetterling", "Schmetterlinge"),
    "car": ("n", "Auto", "Autos"),
    "bus": ("m", "Bus", "Busse"),
    "boat": ("n", "Boot", "Boote"),
    "airplane": ("n", "Flugzeug", "Flugzeuge"),
    "cup": ("f", "Tasse", "Tassen"),
    "lamp": ("f", "Lampe", "Lampen"),
    "chair": ("m", "Stuhl", "Stühle"),
    "bottle": ("f", "Flasche", "Flaschen"),
    "hat": ("m", "Hut", "Hüte"),
    "shirt": ("n", "Hemd", "Hemden"),
    "shoe": ("m", "Schuh", "Schuhe"),
    "sock": ("f", "Socke", "Socken"),
    "tree": ("m", "Baum", "Bäume"),
    "flower": ("f", "Blume", "Blumen"),
    "cactus": ("m", "Kaktus", "Kakteen"),
    "leaf": ("n", "Blatt", "Blätter"),
    "ball": ("m", "Ball", "Bälle"),
    "kite": ("m", "Drachen", "Drachen"),
    "drum": ("f", "Trommel", "Trommeln"),
    "balloon": ("m", "Luftballon", "Luftballons"),
}
COLOUR_NAMES = {
    "red": "rot",
    "orange": "orangefarben",
    "yellow": "gelb",
    "green": "grün",
    "blue": "blau",
    "purple": "violett",
    "pink": "rosa",
    "brown": "braun",
    "white": "weiß",
    "black": "schwarz",
}
UNINFLECTED = ("rosa",)
SIZE_NAMES = {"small": "klein", "large": "groß"}
NUMBERS = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs")
ARTICLES = {"m": "der", "f": "die", "n": "das"}
# After ein, eine, ein; and after a number, where all genders have one.
ENDINGS, PLURAL_ENDING = {"m": "er", "f": "e", "n": "es"}, "e"
ALONE = {"m": "einer", "f": "eine", "n": "eins"}
PLACES = dict(
    zip(
        CELLS,
        (
            "oben links",
            "oben",
            "oben rechts",
            "links",
            "in der Mitte",
            "rechts",
            "unten links",
            "unten",
            "unten rechts",
        ),
        strict=True,
    )
)
SCENERY = {
    "meadow": ("eine Wiese", "auf einer Wiese"),
    "beach": ("ein Strand", "an einem Strand"),
    "snow": ("Schnee", "im Schnee"),
    "night": ("ein Nachthimmel", "unter einem Nachthimmel"),
    "desert": ("eine Wüste", "in einer Wüste"),
    "room": ("ein Zimmer", "in einem Zimmer"),
}
# name: (gender, noun)
CLASS_NAMES = {
    "fruit": ("f", "Frucht"),
    "animal": ("n", "Tier"),
    "vehicle": ("n", "Fahrzeug"),
    "household": ("m", "Haushaltsgegenstand"),
    "clothing": ("n", "Kleidungsstück"),
    "plant": ("f", "Pflanze"),
    "toy": ("n", "Spielzeug"),
}
BESIDE = {"left": "links von", "right": "rechts von", "above": "über", "below": "unter"}


def _a(gender: str) -> str:
    return "eine" if gender == "f" else "ein"


def _inflected(adjective: str, gender: str, count: int) -> str:
    if adjective in UNINFLECTED:
        return adjective
    return adjective + (ENDINGS[gender] if count == 1 else PLURAL_ENDING)


class German(Grammar):
    code = "de"
    background_word = "Hintergrund"
    yes = "ja"
    no = "nein"

    def _noun(self, kind: str, count: int = 1) -> str:
        return NOUNS[kind][1 if count == 1 else 2]

    def phrase(self, group: Group, *, size: bool = False) -> str:
        gender = NOUNS[group.kind][0]
        adjectives = [SIZE_NAMES[group.size]] if size else []
        adjectives.append(COLOUR_NAMES[group.colour])
        number = _a(gender) if group.count == 1 else NUMBERS[group.count]
        inflected = [_inflected(adjective, gender, group.count) for adjective in adjectives]
        return " ".join([number, *inflected, self._noun(group.kind, group.count)])

    def one(self, kind: str) -> str:
        return f"{_a(NOUNS[kind][0])} {self._noun(kind)}"

    def the(self, kind: str, count: int = 1) -> str:
        return f"{ARTICLES[NOUNS[kind][0]] if count == 1 else 'die'} {self._noun(kind, count)}"

    def colour_of(self, group: Group, colour: str) -> str:
        return COLOUR_NAMES[colour]

    def size_of(self, group: Group, size: str) -> str:
        return SIZE_NAMES[size]

    def number_of(self, kind: str | None, count: int) -> str:
        return ALONE[NOUNS[kind][0]] if count == 1 and kind else NUMBERS[count]

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} und {parts[-1]}"

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return self.sentence(f"{self.listing(groups, size=True)} {SCENERY[background][1]}")

    def object(self) -> Sequence[str]:
        return ("Was ist auf dem Bild?", "Was ist auf dem Bild zu sehen?")

    def describe(self) -> Sequence[str]:
        return ("Beschreibe das Bild.", "Schreibe eine kurze Beschreibung des Bildes.")

    def describe_places(self) -> str:
        return "Beschreibe das Bild und sage, wo alles ist."

    def which_present(self) -> str:
        return "Was davon ist auf dem Bild?"

    def absent(self) -> str:
        return "Was davon ist nicht auf dem Bild?"

    def colour(self, group: Group) -> str:
        return f"Welche Farbe {'hat' if group.count == 1 else 'haben'} {self.the(group.kind, group.count)}?"

    def count(self, kind: str) -> str:
        return f"Wie viele {self._noun(kind, 2)} sind auf dem Bild?"

    def total(self) -> str:
        return "Wie viele Dinge sind insgesamt auf dem Bild?"

    def position(self, kind: str) -> str:
        return f"Wo ist {self.the(kind)}?"

    def at_position(self, cell: int) -> str:
        return f"Was ist auf dem Bild {PLACES[CELLS[cell]]} zu sehen?"

    def with_colour(self, colour: str) -> str:
        return f"Was auf dem Bild ist {COLOUR_NAMES[colour]}?"

    def size(self, group: Group) -> str:
        return f"{_is(group)} {self.the(group.kind, group.count)} groß oder klein?"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        return f"Was ist {'größer' if larger else 'kleiner'}, {self.the(first)} oder {self.the(second)}?"

    def existence(self, kind: str) -> str:
        return f"Ist {self.one(kind)} auf dem Bild zu sehen?"

    def class_existence(self, name: str) -> str:
        gender, noun = CLASS_NAMES[name]
        return f"Ist {_a(gender)} {noun} auf dem Bild zu sehen?"

    def background(self) -> str:
        return "Was ist der Hintergrund des Bildes?"

    def class_member(self, name: str) -> str:
        gender, noun = CLASS_NAMES[name]
        return f"Welch{ENDINGS[gender]} {noun} ist auf dem Bild?"

    def _beside(self, direction: str, kind: str) -> str:
        dative = "der" if NOUNS[kind][0] == "f" else "dem"
        return f"{BESIDE[direction]} {dative} {self._noun(kind)}".replace(" von dem ", " vom ")

    def beside(self, direction: str, kind: str) -> str:
        return f"Was ist {self._beside(direction, kind)}?"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        return f"Befindet sich {self.the(first)} {self._beside(direction, second)}?"

    def is_colour(self, group: Group, colour: str) -> str:
        return f"{_is(group)} {self.the(group.kind, group.count)} {COLOUR_NAMES[colour]}?"

    def same_colour(self, first: str, second: str) -> str:
        return f"Haben {self.the(first)} und {self.the(second)} dieselbe Farbe?"

    def more(self, first: str, second: str) -> str:
        return f"Gibt es mehr {self._noun(first, 2)} als {self._noun(second, 2)}?"


def _is(group: Group) -> str:
    return "Ist" if group.count == 1 else "Sind"
