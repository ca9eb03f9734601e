"""Turkish: vowel harmony, consonant softening, singular nouns after numbers.

Suffixes follow the last vowel of their stem: four-way (ı i u ü) for the genitive and the question particle, two-way
(a e) for the plural and the ablative.
"""

from collections.abc import Sequence

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, Group

# kind: (noun, the stem that takes a vowel: ağaç → ağac-ın)
NOUNS = {
    "apple": ("elma", "elma"),
    "banana": ("muz", "muz"),
    "pear": ("armut", "armud"),
    "lemon": ("limon", "limon"),
    "cat": ("kedi", "kedi"),
    "fish": ("balık", "balığ"),
    "bird": ("kuş", "kuş"),
    "butterfly": ("kelebek", "kelebeğ"),
    "car": ("araba", "araba"),
    "bus": ("otobüs", "otobüs"),
    "boat": ("tekne", "tekne"),
    "airplane": ("uçak", "uçağ"),
    "cup": ("fincan", "fincan"),
    "lamp": ("lamba", "lamba"),
    "chair": ("sandalye", "sandalye"),
    "bottle": ("şişe", "şişe"),
    "hat": ("şapka", "şapka"),
    "shirt": ("gömlek", "gömleğ"),
    "shoe": ("ayakkabı", "ayakkabı"),
    "sock": ("çorap", "çorab"),
    "tree": ("ağaç", "ağac"),
    "flower": ("çiçek", "çiçeğ"),
    "cactus": ("kaktüs", "kaktüs"),
    "leaf": ("yaprak", "yaprağ"),
    "ball": ("top", "top"),
    "kite": ("uçurtma", "uçurtma"),
    "drum": ("davul", "davul"),
    "balloon": ("balon", "balon"),
}
COLOUR_NAMES = {
    "red": "kırmızı",
    "orange": "turuncu",
    "yellow": "sarı",
    "green": "yeşil",
    "blue": "mavi",
    "purple": "mor",
    "pink": "pembe",
    "brown": "kahverengi",
    "white": "beyaz",
    "black": "siyah",
}
SIZE_NAMES = {"small": "küçük", "large": "büyük"}
NUMBERS = ("sıfır", "bir", "iki", "üç", "dört", "beş", "altı")
PLACES = dict(
    zip(
        CELLS,
        ("sol üstte", "üstte", "sağ üstte", "solda", "ortada", "sağda", "sol altta", "altta", "sağ altta"),
        strict=True,
    )
)
SCENERY = {
    "meadow": ("çayır", "çayırda"),
    "beach": ("kumsal", "kumsalda"),
    "snow": ("kar", "karda"),
    "night": ("gece göğü", "gece göğünün altında"),
    "desert": ("çöl", "çölde"),
    "room": ("oda", "odada"),
}
CLASS_NAMES = {
    "fruit": "meyve",
    "animal": "hayvan",
    "vehicle": "taşıt",
    "household": "ev eşyası",
    "clothing": "giysi",
    "plant": "bitki",
    "toy": "oyuncak",
}
BESIDE = {"left": "solunda", "right": "sağında", "above": "yukarısında", "below": "aşağısında"}
VOWELS = "aıoueiöü"


def _last_vowel(word: str) -> str:
    return next(letter for letter in reversed(word) if letter in VOWELS)


def four_way(word: str) -> str:
    """The high vowel that harmonises with ``word``: elma → ı, kedi → i, top → u, otobüs → ü."""
    return {"a": "ı", "ı": "ı", "o": "u", "u": "u", "e": "i", "i": "i", "ö": "ü", "ü": "ü"}[_last_vowel(word)]


def two_way(word: str) -> str:
    """The low vowel that harmonises with ``word``: a after a ı o u, e after e i ö ü."""
    return "a" if _last_vowel(word) in "aıou" else "e"


def plural(word: str) -> str:
    return f"{word}l{two_way(word)}r"


def genitive(kind: str) -> str:
    """elma → elmanın, ağaç → ağacın."""
    noun, stem = NOUNS[kind]
    buffer = "n" if noun[-1] in VOWELS else ""
    return f"{stem}{buffer}{four_way(noun)}n"


def particle(word: str) -> str:
    """The question particle after ``word``, written apart: kırmızı mı, yeşil mi, mor mu, küçük mü."""
    return f"{word} m{four_way(word)}"


def _capital(text: str) -> str:
    # Python's upper() would turn i into I; Turkish has İ for it.
    return ("İ" if text[0] == "i" else text[0].upper()) + text[1:]


class Turkish(Grammar):
    code = "tr"
    background_word = "Arka plan"
    yes = "evet"
    no = "hayır"

    def sentence(self, text: str) -> str:
        return _capital(text) + self.full_stop

    def phrase(self, group: Group, *, size: bool = False) -> str:
        words = [SIZE_NAMES[group.size]] if size else []
        words.append(COLOUR_NAMES[group.colour])
        # One thing: the article bir stands after the adjectives; a number stands before them.
        words = [*words, "bir"] if group.count == 1 else [NUMBERS[group.count], *words]
        return " ".join([*words, NOUNS[group.kind][0]])

    def one(self, kind: str) -> str:
        return f"bir {NOUNS[kind][0]}"

    def the(self, kind: str, count: int = 1) -> str:
        noun = NOUNS[kind][0]
        return noun if count == 1 else plural(noun)

    def missing(self, kind: str) -> str:
        return NOUNS[kind][0]

    def colour_of(self, group: Group, colour: str) -> str:
        return COLOUR_NAMES[colour]

    def size_of(self, group: Group, size: str) -> str:
        return SIZE_NAMES[size]

    def number_of(self, kind: str | None, count: int) -> str:
        return NUMBERS[count]

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def located(self, group: Group, cell: int) -> str:
        single = Group(group.kind, group.colour, group.size, (cell,))
        return f"{PLACES[CELLS[cell]]} {self.phrase(single, size=True)}"

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} ve {parts[-1]}"

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return self.sentence(f"{SCENERY[background][1]} {self.listing(groups, size=True)} var")

    def report(self, groups: Sequence[Group], background: str) -> str:
        places = [self.located(group, cell) for group in groups for cell in group.cells]
        return f"{self.sentence(self.join(places) + ' var')} {self.background_word}: {self.scenery(background)}."

    def object(self) -> Sequence[str]:
        return ("Görselde ne var?", "Resimde ne görüyorsun?")

    def describe(self) -> Sequence[str]:
        return ("Görseli anlat.", "Resmi kısaca betimle.")

    def describe_places(self) -> str:
        return "Görseli anlat ve her şeyin yerini söyle."

    def which_present(self) -> str:
        return "Görselde bunlardan hangisi var?"

    def absent(self) -> str:
        return "Görselde bunlardan hangisi yok?"

    def colour(self, group: Group) -> str:
        return f"{_capital(self.the(group.kind, group.count))} ne renk?"

    def count(self, kind: str) -> str:
        return f"Görselde kaç {NOUNS[kind][0]} var?"

    def total(self) -> str:
        return "Görselde toplam kaç nesne var?"

    def position(self, kind: str) -> str:
        return f"{_capital(NOUNS[kind][0])} nerede?"

    def at_position(self, cell: int) -> str:
        return f"Görselde {PLACES[CELLS[cell]]} ne var?"

    def with_colour(self, colour: str) -> str:
        return f"Görselde {COLOUR_NAMES[colour]} olan ne?"

    def size(self, group: Group) -> str:
        large, small = particle(SIZE_NAMES["large"]), particle(SIZE_NAMES["small"])
        return f"{_capital(self.the(group.kind, group.count))} {large} {small}?"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        first, second = (particle(NOUNS[kind][0]) for kind in (first, second))
        return f"Hangisi daha {SIZE_NAMES['large' if larger else 'small']}, {first} {second}?"

    def existence(self, kind: str) -> str:
        return f"Görselde {NOUNS[kind][0]} var mı?"

    def class_existence(self, name: str) -> str:
        return f"Görselde {CLASS_NAMES[name]} var mı?"

    def background(self) -> str:
        return "Görselin arka planı ne?"

    def class_member(self, name: str) -> str:
        return f"Görselde hangi {CLASS_NAMES[name]} var?"

    def beside(self, direction: str, kind: str) -> str:
        return f"{_capital(genitive(kind))} {BESIDE[direction]} ne var?"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        return f"{_capital(NOUNS[first][0])} {genitive(second)} {particle(BESIDE[direction])}?"

    def is_colour(self, group: Group, colour: str) -> str:
        return f"{_capital(self.the(group.kind, group.count))} {particle(COLOUR_NAMES[colour])}?"

    def same_colour(self, first: str, second: str) -> str:
        return f"{_capital(NOUNS[first][0])} ile {NOUNS[second][0]} aynı renkte mi?"

    def more(self, first: str, second: str) -> str:
        # The noun counted as a whole stays singular: elma sayısı.
        return f"{_capital(NOUNS[first][0])} sayısı {NOUNS[second][0]} sayısından fazla mı?"
