"""Portuguese (Brazilian usage): gender and number agreement, contracted articles."""

from collections.abc import Sequence

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, Group

# kind: (gender, singular, plural)
NOUNS = {
    "apple": ("f", "maçã", "maçãs"),
    "banana": ("f", "banana", "bananas"),
    "pear": ("f", "pera", "peras"),
    "lemon": ("m", "limão", "limões"),
    "cat": ("m", "gato", "gatos"),
    "fish": ("m", "peixe", "peixes"),
    "bird": ("m", "pássaro", "pássaros"),
    "butterfly": ("f", "borboleta", "borboletas"),
    "car": ("m", "carro", "carros"),
    "bus": ("m", "ônibus", "ônibus"),
    "boat": ("m", "barco", "barcos"),
    "airplane": ("m", "avião", "aviões"),
    "cup": ("f", "xícara", "xícaras"),
    "lamp": ("f", "luminária", "luminárias"),
    "chair": ("f", "cadeira", "cadeiras"),
    "bottle": ("f", "garrafa", "garrafas"),
    "hat": ("m", "chapéu", "chapéus"),
    "shirt": ("f", "camisa", "camisas"),
    "shoe": ("m", "sapato", "sapatos"),
    "sock": ("f", "meia", "meias"),
    "tree": ("f", "árvore", "árvores"),
    "flower": ("f", "flor", "flores"),
    "cactus": ("m", "cacto", "cactos"),
    "leaf": ("f", "folha", "folhas"),
    "ball": ("f", "bola", "bolas"),
    "kite": ("f", "pipa", "pipas"),
    "drum": ("m", "tambor", "tambores"),
    "balloon": ("m", "balão", "balões"),
}
# (masculine, feminine, masculine plural, feminine plural)
COLOUR_NAMES = {
    "red": ("vermelho", "vermelha", "vermelhos", "vermelhas"),
    "orange": ("laranja",) * 4,
    "yellow": ("amarelo", "amarela", "amarelos", "amarelas"),
    "green": ("verde", "verde", "verdes", "verdes"),
    "blue": ("azul", "azul", "azuis", "azuis"),
    "purple": ("roxo", "roxa", "roxos", "roxas"),
    "pink": ("rosa",) * 4,
    "brown": ("marrom", "marrom", "marrons", "marrons"),
    "white": ("branco", "branca", "brancos", "brancas"),
    "black": ("preto", "preta", "pretos", "pretas"),
}
SIZE_NAMES = {
    "small": ("pequeno", "pequena", "pequenos", "pequenas"),
    "large": ("grande", "grande", "grandes", "grandes"),
}
NUMBERS = {
    "m": ("zero", "um", "dois", "três", "quatro", "cinco", "seis"),
    "f": ("zero", "uma", "duas", "três", "quatro", "cinco", "seis"),
}
PLACES = dict(
    zip(
        CELLS,
        (
            "no canto superior esquerdo",
            "na parte de cima",
            "no canto superior direito",
            "à esquerda",
            "no centro",
            "à direita",
            "no canto inferior esquerdo",
            "na parte de baixo",
            "no canto inferior direito",
        ),
        strict=True,
    )
)
SCENERY = {
    "meadow": ("um campo", "em um campo"),
    "beach": ("uma praia", "em uma praia"),
    "snow": ("neve", "na neve"),
    "night": ("um céu noturno", "sob um céu noturno"),
    "desert": ("um deserto", "em um deserto"),
    "room": ("uma sala", "em uma sala"),
}
CLASS_NAMES = {
    "fruit": "uma fruta",
    "animal": "um animal",
    "vehicle": "um veículo",
    "household": "um objeto doméstico",
    "clothing": "uma peça de roupa",
    "plant": "uma planta",
    "toy": "um brinquedo",
}
BESIDE = {"left": "à esquerda de", "right": "à direita de", "above": "acima de", "below": "abaixo de"}


def _form(forms: tuple[str, ...], gender: str, count: int) -> str:
    return forms[(gender == "f") + 2 * (count > 1)]


class Portuguese(Grammar):
    code = "pt"
    background_word = "Fundo"
    yes = "sim"
    no = "não"

    def _noun(self, kind: str, count: int = 1) -> str:
        return NOUNS[kind][1 if count == 1 else 2]

    def phrase(self, group: Group, *, size: bool = False) -> str:
        gender = NOUNS[group.kind][0]
        words = [
            NUMBERS[gender][group.count],
            self._noun(group.kind, group.count),
            _form(COLOUR_NAMES[group.colour], gender, group.count),
        ]
        if size:
            words.append(_form(SIZE_NAMES[group.size], gender, group.count))
        return " ".join(words)

    def one(self, kind: str) -> str:
        return f"{NUMBERS[NOUNS[kind][0]][1]} {self._noun(kind)}"

    def the(self, kind: str, count: int = 1) -> str:
        article = "a" if NOUNS[kind][0] == "f" else "o"
        return f"{article}{'s' if count > 1 else ''} {self._noun(kind, count)}"

    def colour_of(self, group: Group, colour: str) -> str:
        return _form(COLOUR_NAMES[colour], NOUNS[group.kind][0], group.count)

    def size_of(self, group: Group, size: str) -> str:
        return _form(SIZE_NAMES[size], NOUNS[group.kind][0], group.count)

    def number_of(self, kind: str | None, count: int) -> str:
        return NUMBERS[NOUNS[kind][0] if kind else "m"][count]

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} e {parts[-1]}"

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return self.sentence(f"{self.listing(groups, size=True)} {SCENERY[background][1]}")

    def object(self) -> Sequence[str]:
        return ("O que há na imagem?", "O que você vê na figura?")

    def describe(self) -> Sequence[str]:
        return ("Descreva a imagem.", "Escreva uma breve descrição da figura.")

    def describe_places(self) -> str:
        return "Descreva a imagem e diga onde está cada coisa."

    def which_present(self) -> str:
        return "Qual destes está na imagem?"

    def absent(self) -> str:
        return "Qual destes não está na imagem?"

    def colour(self, group: Group) -> str:
        return f"De que cor {'é' if group.count == 1 else 'são'} {self.the(group.kind, group.count)}?"

    def count(self, kind: str) -> str:
        return f"{'Quantas' if NOUNS[kind][0] == 'f' else 'Quantos'} {self._noun(kind, 2)} há na imagem?"

    def total(self) -> str:
        return "Quantos objetos há na imagem ao todo?"

    def position(self, kind: str) -> str:
        return f"Onde está {self.the(kind)}?"

    def at_position(self, cell: int) -> str:
        return f"O que há {PLACES[CELLS[cell]]} da imagem?"

    def with_colour(self, colour: str) -> str:
        return f"O que é {COLOUR_NAMES[colour][0]} na imagem?"

    def size(self, group: Group) -> str:
        verb = "é" if group.count == 1 else "são"
        large, small = (self.size_of(group, size) for size in ("large", "small"))
        subject = self.the(group.kind, group.count)
        return f"{subject[0].upper()}{subject[1:]} {verb} {large} ou {small}?"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        return f"O que é {'maior' if larger else 'menor'}, {self.the(first)} ou {self.the(second)}?"

    def existence(self, kind: str) -> str:
        return f"Há {self.one(kind)} na imagem?"

    def class_existence(self, name: str) -> str:
        return f"Há {CLASS_NAMES[name]} na imagem?"

    def background(self) -> str:
        return "Qual é o fundo da imagem?"

    def class_member(self, name: str) -> str:
        return f"Que {CLASS_NAMES[name].split(' ', 1)[1]} há na imagem?"

    def _of(self, direction: str, kind: str) -> str:
        # de + o/a contract to do/da.
        return BESIDE[direction][:-1] + self.the(kind)  # "à esquerda d" + "a maçã"

    def beside(self, direction: str, kind: str) -> str:
        return f"O que está {self._of(direction, kind)}?"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        subject = self.the(first)
        return f"{subject[0].upper()}{subject[1:]} está {self._of(direction, second)}?"

    def is_colour(self, group: Group, colour: str) -> str:
        subject = self.the(group.kind, group.count)
        verb = "é" if group.count == 1 else "são"
        return f"{subject[0].upper()}{subject[1:]} {verb} {self.colour_of(group, colour)}?"

    def same_colour(self, first: str, second: str) -> str:
        subject = self.the(first)
        return f"{subject[0].upper()}{subject[1:]} e {self.the(second)} são da mesma cor?"

    def more(self, first: str, second: str) -> str:
        return f"Há mais {self._noun(first, 2)} do que {self._noun(second, 2)}?"
