"""Spanish: gender and number agreement, de + el contracted, one as an adjective (un) and alone (uno)."""

from collections.abc import Sequence

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, Group

# kind: (gender, singular, plural)
NOUNS = {
    "apple": ("f", "manzana", "manzanas"),
    "banana": ("m", "plátano", "plátanos"),
    "pear": ("f", "pera", "peras"),
    "lemon": ("m", "limón", "limones"),
    "cat": ("m", "gato", "gatos"),
    "fish": ("m", "pez", "peces"),
    "bird": ("m", "pájaro", "pájaros"),
    "butterfly": ("f", "mariposa", "mariposas"),
    "car": ("m", "coche", "coches"),
    "bus": ("m", "autobús", "autobuses"),
    "boat": ("m", "barco", "barcos"),
    "airplane": ("m", "avión", "aviones"),
    "cup": ("f", "taza", "tazas"),
    "lamp": ("f", "lámpara", "lámparas"),
    "chair": ("f", "silla", "sillas"),
    "bottle": ("f", "botella", "botellas"),
    "hat": ("m", "sombrero", "sombreros"),
    "shirt": ("f", "camisa", "camisas"),
    "shoe": ("m", "zapato", "zapatos"),
    "sock": ("m", "calcetín", "calcetines"),
    "tree": ("m", "árbol", "árboles"),
    "flower": ("f", "flor", "flores"),
    "cactus": ("m", "cactus", "cactus"),
    "leaf": ("f", "hoja", "hojas"),
    "ball": ("f", "pelota", "pelotas"),
    "kite": ("f", "cometa", "cometas"),
    "drum": ("m", "tambor", "tambores"),
    "balloon": ("m", "globo", "globos"),
}
# (masculine, feminine, masculine plural, feminine plural)
COLOUR_NAMES = {
    "red": ("rojo", "roja", "rojos", "rojas"),
    "orange": ("naranja",) * 4,
    "yellow": ("amarillo", "amarilla", "amarillos", "amarillas"),
    "green": ("verde", "verde", "verdes", "verdes"),
    "blue": ("azul", "azul", "azules", "azules"),
    "purple": ("morado", "morada", "morados", "moradas"),
    "pink": ("rosa",) * 4,
    "brown": ("marrón", "marrón", "marrones", "marrones"),
    "white": ("blanco", "blanca", "blancos", "blancas"),
    "black": ("negro", "negra", "negros", "negras"),
}
SIZE_NAMES = {
    "small": ("pequeño", "pequeña", "pequeños", "pequeñas"),
    "large": ("grande", "grande", "grandes", "grandes"),
}
NUMBERS = ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis")
PLACES = dict(
    zip(
        CELLS,
        (
            "en la esquina superior izquierda",
            "en la parte superior",
            "en la esquina superior derecha",
            "en el lado izquierdo",
            "en el centro",
            "en el lado derecho",
            "en la esquina inferior izquierda",
            "en la parte inferior",
            "en la esquina inferior derecha",
        ),
        strict=True,
    )
)
SCENERY = {
    "meadow": ("un prado", "en un prado"),
    "beach": ("una playa", "en una playa"),
    "snow": ("nieve", "en la nieve"),
    "night": ("un cielo nocturno", "bajo un cielo nocturno"),
    "desert": ("un desierto", "en un desierto"),
    "room": ("una habitación", "en una habitación"),
}
CLASS_NAMES = {
    "fruit": "una fruta",
    "animal": "un animal",
    "vehicle": "un vehículo",
    "household": "un objeto doméstico",
    "clothing": "una prenda de vestir",
    "plant": "una planta",
    "toy": "un juguete",
}
BESIDE = {
    "left": "a la izquierda de",
    "right": "a la derecha de",
    "above": "por encima de",
    "below": "por debajo de",
}


def _form(forms: tuple[str, ...], gender: str, count: int) -> str:
    return forms[(gender == "f") + 2 * (count > 1)]


class Spanish(Grammar):
    code = "es"
    background_word = "Fondo"
    yes = "sí"
    no = "no"

    def _noun(self, kind: str, count: int = 1) -> str:
        return NOUNS[kind][1 if count == 1 else 2]

    def _counted(self, kind: str, count: int) -> str:
        """``un gato``, ``una manzana``, ``dos gatos``."""
        number = NUMBERS[count] if count != 1 else "una" if NOUNS[kind][0] == "f" else "un"
        return f"{number} {self._noun(kind, count)}"

    def phrase(self, group: Group, *, size: bool = False) -> str:
        gender = NOUNS[group.kind][0]
        words = [self._counted(group.kind, group.count), _form(COLOUR_NAMES[group.colour], gender, group.count)]
        if size:
            words.append(_form(SIZE_NAMES[group.size], gender, group.count))
        return " ".join(words)

    def one(self, kind: str) -> str:
        return self._counted(kind, 1)

    def the(self, kind: str, count: int = 1) -> str:
        one, many = ("la", "las") if NOUNS[kind][0] == "f" else ("el", "los")
        return f"{one if count == 1 else many} {self._noun(kind, count)}"

    def colour_of(self, group: Group, colour: str) -> str:
        return _form(COLOUR_NAMES[colour], NOUNS[group.kind][0], group.count)

    def size_of(self, group: Group, size: str) -> str:
        return _form(SIZE_NAMES[size], NOUNS[group.kind][0], group.count)

    def number_of(self, kind: str | None, count: int) -> str:
        return "una" if count == 1 and kind and NOUNS[kind][0] == "f" else NUMBERS[count]

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        # Before the sound of i it would be "e", but every part begins with un, una or a number up to six.
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} y {parts[-1]}"

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return self.sentence(f"{self.listing(groups, size=True)} {SCENERY[background][1]}")

    def object(self) -> Sequence[str]:
        return ("¿Qué hay en la imagen?", "¿Qué se ve en la imagen?")

    def describe(self) -> Sequence[str]:
        return ("Describe la imagen.", "Escribe una breve descripción de la imagen.")

    def describe_places(self) -> str:
        return "Describe la imagen y di dónde está cada cosa."

    def which_present(self) -> str:
        return "¿Cuál de estas cosas está en la imagen?"

    def absent(self) -> str:
        return "¿Cuál de estas cosas no está en la imagen?"

    def colour(self, group: Group) -> str:
        return f"¿De qué color {_is(group)} {self.the(group.kind, group.count)}?"

    def count(self, kind: str) -> str:
        return f"¿{'Cuántas' if NOUNS[kind][0] == 'f' else 'Cuántos'} {self._noun(kind, 2)} hay en la imagen?"

    def total(self) -> str:
        return "¿Cuántos objetos hay en total en la imagen?"

    def position(self, kind: str) -> str:
        return f"¿Dónde está {self.the(kind)}?"

    def at_position(self, cell: int) -> str:
        return f"¿Qué hay {PLACES[CELLS[cell]]} de la imagen?"

    def with_colour(self, colour: str) -> str:
        return f"¿Qué hay de color {COLOUR_NAMES[colour][0]} en la imagen?"

    def size(self, group: Group) -> str:
        large, small = (self.size_of(group, size) for size in ("large", "small"))
        return f"¿{self._subject(group.kind, group.count)} {_is(group)} {large} o {small}?"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        return f"¿Qué es más {'grande' if larger else 'pequeño'}, {self.the(first)} o {self.the(second)}?"

    def existence(self, kind: str) -> str:
        return f"¿Hay {self.one(kind)} en la imagen?"

    def class_existence(self, name: str) -> str:
        return f"¿Hay {CLASS_NAMES[name]} en la imagen?"

    def background(self) -> str:
        return "¿Cuál es el fondo de la imagen?"

    def class_member(self, name: str) -> str:
        return f"¿Qué {CLASS_NAMES[name].split(' ', 1)[1]} hay en la imagen?"

    def _subject(self, kind: str, count: int = 1) -> str:
        return self.the(kind, count).capitalize()

    def _of(self, direction: str, kind: str) -> str:
        return f"{BESIDE[direction]} {self.the(kind)}".replace(" de el ", " del ")

    def beside(self, direction: str, kind: str) -> str:
        return f"¿Qué hay {self._of(direction, kind)}?"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        return f"¿{self._subject(first)} está {self._of(direction, second)}?"

    def is_colour(self, group: Group, colour: str) -> str:
        return f"¿{self._subject(group.kind, group.count)} {_is(group)} {self.colour_of(group, colour)}?"

    def same_colour(self, first: str, second: str) -> str:
        return f"¿{self._subject(first)} y {self.the(second)} son del mismo color?"

    def more(self, first: str, second: str) -> str:
        return f"¿Hay más {self._noun(first, 2)} que {self._noun(second, 2)}?"


def _is(group: Group) -> str:
    return "es" if group.count == 1 else "son"
