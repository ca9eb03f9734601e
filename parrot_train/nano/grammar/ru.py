"""Russian: three genders, the genitive after numbers and after «нет», adjectives that agree."""

from collections.abc import Sequence

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, Group

# kind: (gender, nominative, genitive, nominative plural, genitive plural)
NOUNS = {
    "apple": ("n", "яблоко", "яблока", "яблоки", "яблок"),
    "banana": ("m", "банан", "банана", "бананы", "бананов"),
    "pear": ("f", "груша", "груши", "груши", "груш"),
    "lemon": ("m", "лимон", "лимона", "лимоны", "лимонов"),
    "cat": ("f", "кошка", "кошки", "кошки", "кошек"),
    "fish": ("f", "рыба", "рыбы", "рыбы", "рыб"),
    "bird": ("f", "птица", "птицы", "птицы", "птиц"),
    "butterfly": ("f", "бабочка", "бабочки", "бабочки", "бабочек"),
    "car": ("f", "машина", "машины", "машины", "машин"),
    "bus": ("m", "автобус", "автобуса", "автобусы", "автобусов"),
    "boat": ("f", "лодка", "лодки", "лодки", "лодок"),
    "airplane": ("m", "самолёт", "самолёта", "самолёты", "самолётов"),
    "cup": ("f", "чашка", "чашки", "чашки", "чашек"),
    "lamp": ("f", "лампа", "лампы", "лампы", "ламп"),
    "chair": ("m", "стул", "стула", "стулья", "стульев"),
    "bottle": ("f", "бутылка", "бутылки", "бутылки", "бутылок"),
    "hat": ("f", "шляпа", "шляпы", "шляпы", "шляп"),
    "shirt": ("f", "рубашка", "рубашки", "рубашки", "рубашек"),
    "shoe": ("m", "ботинок", "ботинка", "ботинки", "ботинок"),
    "sock": ("m", "носок", "носка", "носки", "носков"),
    "tree": ("n", "дерево", "дерева", "деревья", "деревьев"),
    "flower": ("m", "цветок", "цветка", "цветы", "цветов"),
    "cactus": ("m", "кактус", "кактуса", "кактусы", "кактусов"),
    "leaf": ("m", "лист", "листа", "листья", "листьев"),
    "ball": ("m", "мяч", "мяча", "мячи", "мячей"),
    "kite": ("m", "воздушный змей", "воздушного змея", "воздушные змеи", "воздушных змеев"),
    "drum": ("m", "барабан", "барабана", "барабаны", "барабанов"),
    "balloon": ("m", "воздушный шар", "воздушного шара", "воздушные шары", "воздушных шаров"),
}
# (masculine, feminine, neuter, plural, genitive plural)
HARD, SOFT = ("ый", "ая", "ое", "ые", "ых"), ("ий", "яя", "ее", "ие", "их")
ADJECTIVES = {
    "red": ("красн", HARD),
    "orange": ("оранжев", HARD),
    "yellow": ("жёлт", HARD),
    "green": ("зелён", HARD),
    "blue": ("син", SOFT),
    "purple": ("фиолетов", HARD),
    "pink": ("розов", HARD),
    "brown": ("коричнев", HARD),
    "white": ("бел", HARD),
    "black": ("чёрн", HARD),
    "large": ("больш", ("ой", "ая", "ое", "ие", "их")),
    "small": ("маленьк", ("ий", "ая", "ое", "ие", "их")),
}
NUMBERS = ("ноль", "один", "два", "три", "четыре", "пять", "шесть")
ONE = {"m": "один", "f": "одна", "n": "одно"}
PLACES = dict(
    zip(
        CELLS,
        (
            "слева вверху",
            "вверху",
            "справа вверху",
            "слева",
            "в центре",
            "справа",
            "слева внизу",
            "внизу",
            "справа внизу",
        ),
        strict=True,
    )
)
SCENERY = {
    "meadow": ("луг", "на лугу"),
    "beach": ("пляж", "на пляже"),
    "snow": ("снег", "на снегу"),
    "night": ("ночное небо", "под ночным небом"),
    "desert": ("пустыня", "в пустыне"),
    "room": ("комната", "в комнате"),
}
# (the pronoun that agrees, the class)
CLASS_NAMES = {
    "fruit": ("какой", "фрукт"),
    "animal": ("какое", "животное"),
    "vehicle": ("какой", "транспорт"),
    "household": ("какой", "предмет быта"),
    "clothing": ("какой", "предмет одежды"),
    "plant": ("какое", "растение"),
    "toy": ("какая", "игрушка"),
}
BESIDE = {"left": "слева от", "right": "справа от", "above": "выше", "below": "ниже"}


def adjective(name: str, gender: str, count: int = 1) -> str:
    """The form that stands with ``count`` things: agreeing for one, genitive plural after numbers.

    After 2–4 a feminine noun takes the nominative plural (две красные машины), the others the genitive (два красных
    яблока).
    """
    stem, endings = ADJECTIVES[name]
    if count == 1:
        return stem + endings["mfn".index(gender)]
    return stem + endings[3 if gender == "f" and count < 5 else 4]


def numeral(gender: str, count: int) -> str:
    if count == 1:
        return ONE[gender]
    return "две" if count == 2 and gender == "f" else NUMBERS[count]


def counted(kind: str, count: int) -> str:
    """The noun after a number: one яблоко, 2–4 яблока, 5 and more яблок."""
    return NOUNS[kind][1 if count == 1 else 2 if count < 5 else 4]


class Russian(Grammar):
    code = "ru"
    background_word = "Фон"
    yes = "да"
    no = "нет"

    def phrase(self, group: Group, *, size: bool = False) -> str:
        gender = NOUNS[group.kind][0]
        words = [adjective(group.size, gender, group.count)] if size else []
        words += [adjective(group.colour, gender, group.count), counted(group.kind, group.count)]
        if group.count > 1:
            words.insert(0, numeral(gender, group.count))
        return " ".join(words)

    def one(self, kind: str) -> str:
        return NOUNS[kind][1]

    def the(self, kind: str, count: int = 1) -> str:
        return NOUNS[kind][1 if count == 1 else 3]

    def missing(self, kind: str) -> str:
        return NOUNS[kind][2]

    def _predicate(self, group: Group, name: str) -> str:
        stem, endings = ADJECTIVES[name]
        return stem + (endings[3] if group.count > 1 else endings["mfn".index(NOUNS[group.kind][0])])

    def colour_of(self, group: Group, colour: str) -> str:
        return self._predicate(group, colour)

    def size_of(self, group: Group, size: str) -> str:
        return self._predicate(group, size)

    def number_of(self, kind: str | None, count: int) -> str:
        return numeral(NOUNS[kind][0] if kind else "m", count)

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} и {parts[-1]}"

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return self.sentence(f"{self.listing(groups, size=True)} {SCENERY[background][1]}")

    def object(self) -> Sequence[str]:
        return ("Что на картинке?", "Что ты видишь на изображении?")

    def describe(self) -> Sequence[str]:
        return ("Опиши картинку.", "Кратко опиши изображение.")

    def describe_places(self) -> str:
        return "Опиши картинку и скажи, где что находится."

    def which_present(self) -> str:
        return "Что из этого есть на картинке?"

    def absent(self) -> str:
        return "Чего из этого нет на картинке?"

    def colour(self, group: Group) -> str:
        return f"Какого цвета {self.the(group.kind, group.count)}?"

    def count(self, kind: str) -> str:
        return f"Сколько {NOUNS[kind][4]} на картинке?"

    def total(self) -> str:
        return "Сколько всего предметов на картинке?"

    def position(self, kind: str) -> str:
        return f"Где находится {NOUNS[kind][1]}?"

    def at_position(self, cell: int) -> str:
        return f"Что находится на картинке {PLACES[CELLS[cell]]}?"

    def with_colour(self, colour: str) -> str:
        stem, endings = ADJECTIVES[colour]
        genitive = stem + ("его" if endings is SOFT else "ого")
        return f"Что на картинке {genitive} цвета?"

    def size(self, group: Group) -> str:
        subject = self.the(group.kind, group.count)
        large, small = (self.size_of(group, size) for size in ("large", "small"))
        return f"{subject[0].upper()}{subject[1:]} {large} или {small}?"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        return f"Что {'больше' if larger else 'меньше'}: {NOUNS[first][1]} или {NOUNS[second][1]}?"

    def existence(self, kind: str) -> str:
        return f"Есть ли на картинке {NOUNS[kind][1]}?"

    def class_existence(self, name: str) -> str:
        return f"Есть ли на картинке {CLASS_NAMES[name][1]}?"

    def background(self) -> str:
        return "Что на заднем плане?"

    def class_member(self, name: str) -> str:
        pronoun, noun = CLASS_NAMES[name]
        return f"{pronoun[0].upper()}{pronoun[1:]} {noun} на картинке?"

    def beside(self, direction: str, kind: str) -> str:
        return f"Что находится {BESIDE[direction]} {NOUNS[kind][2]}?"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        subject = NOUNS[first][1]
        return f"{subject[0].upper()}{subject[1:]} находится {BESIDE[direction]} {NOUNS[second][2]}?"

    def is_colour(self, group: Group, colour: str) -> str:
        subject = self.the(group.kind, group.count)
        return f"{subject[0].upper()}{subject[1:]} {self.colour_of(group, colour)}?"

    def same_colour(self, first: str, second: str) -> str:
        subject = NOUNS[first][1]
        return f"{subject[0].upper()}{subject[1:]} и {NOUNS[second][1]} одного цвета?"

    def more(self, first: str, second: str) -> str:
        return f"{NOUNS[first][4][0].upper()}{NOUNS[first][4][1:]} больше, чем {NOUNS[second][4]}?"
