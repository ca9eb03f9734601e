"""Arabic: the dual, numbers of the opposite gender, feminine singular adjectives with plurals of things.

Written without case vowels, as print is. Sentences are built so that the dual stands in the nominative (-ان), except
after a noun that governs it (لون التفاحتين), where it takes -ين.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.scenes import CELLS, Group


@dataclass(frozen=True)
class Noun:
    """All forms the sentences need; ``counted`` follows كم (how many), in the accusative singular."""

    gender: str
    singular: str
    dual: str
    plural: str
    definite: str
    definite_dual: str
    governed_dual: str
    definite_plural: str
    counted: str


def _noun(gender: str, singular: str, plural: str, *, dual: str = "", counted: str = "") -> Noun:
    """A simple noun; its other forms follow from the singular (a final ة opens into ت before the dual)."""
    dual = dual or (singular[:-1] + "ت" if singular.endswith("ة") else singular) + "ان"
    counted = counted or (singular if gender == "f" else singular + "ًا")
    return Noun(
        gender, singular, dual, plural, "ال" + singular, "ال" + dual, "ال" + dual[:-2] + "ين", "ال" + plural, counted
    )


NOUNS = {
    "apple": _noun("f", "تفاحة", "تفاحات"),
    "banana": _noun("f", "موزة", "موزات"),
    "pear": _noun("f", "إجاصة", "إجاصات"),
    "lemon": _noun("f", "ليمونة", "ليمونات"),
    "cat": _noun("f", "قطة", "قطط"),
    "fish": _noun("f", "سمكة", "سمكات"),
    "bird": _noun("m", "عصفور", "عصافير"),
    "butterfly": _noun("f", "فراشة", "فراشات"),
    "car": _noun("f", "سيارة", "سيارات"),
    "bus": _noun("f", "حافلة", "حافلات"),
    "boat": _noun("m", "قارب", "قوارب"),
    "airplane": _noun("f", "طائرة", "طائرات"),
    "cup": _noun("m", "كوب", "أكواب"),
    "lamp": _noun("m", "مصباح", "مصابيح"),
    "chair": _noun("m", "كرسي", "كراسي"),
    "bottle": _noun("f", "زجاجة", "زجاجات"),
    "hat": _noun("f", "قبعة", "قبعات"),
    "shirt": _noun("m", "قميص", "قمصان"),
    "shoe": _noun("m", "حذاء", "أحذية", counted="حذاءً"),
    "sock": _noun("m", "جورب", "جوارب"),
    "tree": _noun("f", "شجرة", "شجرات"),
    "flower": _noun("f", "زهرة", "زهرات"),
    "cactus": _noun("f", "صبارة", "صبارات"),
    # Two compounds: "leaf of tree" (a genitive construct) and "paper aeroplane" (noun and adjective).
    "leaf": Noun(
        "f",
        "ورقة شجر",
        "ورقتا شجر",
        "أوراق شجر",
        "ورقة الشجر",
        "ورقتا الشجر",
        "ورقتي الشجر",
        "أوراق الشجر",
        "ورقة شجر",
    ),
    "kite": Noun(
        "f",
        "طائرة ورقية",
        "طائرتان ورقيتان",
        "طائرات ورقية",
        "الطائرة الورقية",
        "الطائرتان الورقيتان",
        "الطائرتين الورقيتين",
        "الطائرات الورقية",
        "طائرة ورقية",
    ),
    "ball": _noun("f", "كرة", "كرات"),
    "drum": _noun("m", "طبل", "طبول"),
    "balloon": _noun("m", "بالون", "بالونات"),
}
# (masculine, feminine, masculine dual, feminine dual)
ADJECTIVES = {
    "red": ("أحمر", "حمراء", "أحمران", "حمراوان"),
    "orange": ("برتقالي", "برتقالية", "برتقاليان", "برتقاليتان"),
    "yellow": ("أصفر", "صفراء", "أصفران", "صفراوان"),
    "green": ("أخضر", "خضراء", "أخضران", "خضراوان"),
    "blue": ("أزرق", "زرقاء", "أزرقان", "زرقاوان"),
    "purple": ("بنفسجي", "بنفسجية", "بنفسجيان", "بنفسجيتان"),
    "pink": ("وردي", "وردية", "ورديان", "ورديتان"),
    "brown": ("بني", "بنية", "بنيان", "بنيتان"),
    "white": ("أبيض", "بيضاء", "أبيضان", "بيضاوان"),
    "black": ("أسود", "سوداء", "أسودان", "سوداوان"),
    "large": ("كبير", "كبيرة", "كبيران", "كبيرتان"),
    "small": ("صغير", "صغيرة", "صغيران", "صغيرتان"),
}
# From three on the number takes the gender opposite to its noun's.
NUMBERS = {
    "m": ("صفر", "واحد", "اثنان", "ثلاثة", "أربعة", "خمسة", "ستة"),
    "f": ("صفر", "واحدة", "اثنتان", "ثلاث", "أربع", "خمس", "ست"),
}
PLACES = dict(
    zip(
        CELLS,
        (
            "في أعلى اليسار",
            "في الأعلى",
            "في أعلى اليمين",
            "على اليسار",
            "في الوسط",
            "على اليمين",
            "في أسفل اليسار",
            "في الأسفل",
            "في أسفل اليمين",
        ),
        strict=True,
    )
)
PLACES_OF_PICTURE = dict(
    zip(
        CELLS,
        (
            "في أعلى يسار الصورة",
            "في أعلى الصورة",
            "في أعلى يمين الصورة",
            "على يسار الصورة",
            "في وسط الصورة",
            "على يمين الصورة",
            "في أسفل يسار الصورة",
            "في أسفل الصورة",
            "في أسفل يمين الصورة",
        ),
        strict=True,
    )
)
SCENERY = {
    "meadow": ("مرج", "في مرج"),
    "beach": ("شاطئ", "على شاطئ"),
    "snow": ("ثلج", "في الثلج"),
    "night": ("سماء ليلية", "تحت سماء ليلية"),
    "desert": ("صحراء", "في صحراء"),
    "room": ("غرفة", "في غرفة"),
}
# (gender, indefinite, definite)
CLASS_NAMES = {
    "fruit": ("f", "فاكهة", "الفاكهة"),
    "animal": ("m", "حيوان", "الحيوان"),
    "vehicle": ("f", "مركبة", "المركبة"),
    "household": ("m", "غرض منزلي", "الغرض المنزلي"),
    "clothing": ("f", "قطعة ملابس", "قطعة الملابس"),
    "plant": ("m", "نبات", "النبات"),
    "toy": ("f", "لعبة", "اللعبة"),
}
BESIDE = {"left": "على يسار", "right": "على يمين", "above": "فوق", "below": "تحت"}


def adjective(name: str, gender: str, count: int) -> str:
    """Agrees for one and two; a plural of things takes the feminine singular."""
    masculine, feminine, masculine_dual, feminine_dual = ADJECTIVES[name]
    if count == 2:
        return masculine_dual if gender == "m" else feminine_dual
    return masculine if count == 1 and gender == "m" else feminine


class Arabic(Grammar):
    code = "ar"
    background_word = "الخلفية"
    yes = "نعم"
    no = "لا"

    def phrase(self, group: Group, *, size: bool = False) -> str:
        noun, count = NOUNS[group.kind], group.count
        words = [noun.singular if count == 1 else noun.dual if count == 2 else noun.plural]
        if count > 2:
            words.insert(0, NUMBERS[noun.gender][count])
        words.append(adjective(group.colour, noun.gender, count))
        if size:
            words.append(adjective(group.size, noun.gender, count))
        return " ".join(words)

    def one(self, kind: str) -> str:
        return NOUNS[kind].singular

    def the(self, kind: str, count: int = 1) -> str:
        noun = NOUNS[kind]
        return noun.definite if count == 1 else noun.definite_dual if count == 2 else noun.definite_plural

    def colour_of(self, group: Group, colour: str) -> str:
        # The answer names the colour itself (لونها أحمر), so it stays masculine.
        return ADJECTIVES[colour][0]

    def size_of(self, group: Group, size: str) -> str:
        return adjective(size, NOUNS[group.kind].gender, group.count)

    def number_of(self, kind: str | None, count: int) -> str:
        return NUMBERS[NOUNS[kind].gender if kind else "m"][count]

    def place(self, cell: int) -> str:
        return PLACES[CELLS[cell]]

    def scenery(self, background: str) -> str:
        return SCENERY[background][0]

    def join(self, parts: Sequence[str]) -> str:
        return " و".join(parts)

    def caption(self, groups: Sequence[Group], background: str) -> str:
        return self.sentence(f"{self.listing(groups, size=True)} {SCENERY[background][1]}")

    def object(self) -> Sequence[str]:
        return ("ماذا يوجد في الصورة؟", "ماذا ترى في الصورة؟")

    def describe(self) -> Sequence[str]:
        return ("صف الصورة.", "اكتب وصفًا قصيرًا للصورة.")

    def describe_places(self) -> str:
        return "صف الصورة واذكر مكان كل شيء."

    def which_present(self) -> str:
        return "أي مما يلي موجود في الصورة؟"

    def absent(self) -> str:
        return "أي مما يلي غير موجود في الصورة؟"

    def colour(self, group: Group) -> str:
        noun = NOUNS[group.kind]
        return f"ما لون {noun.governed_dual if group.count == 2 else self.the(group.kind, group.count)}؟"

    def count(self, kind: str) -> str:
        return f"كم {NOUNS[kind].counted} في الصورة؟"

    def total(self) -> str:
        return "كم عدد الأشياء في الصورة؟"

    def position(self, kind: str) -> str:
        return f"أين {NOUNS[kind].definite}؟"

    def at_position(self, cell: int) -> str:
        return f"ماذا يوجد {PLACES_OF_PICTURE[CELLS[cell]]}؟"

    def with_colour(self, colour: str) -> str:
        return f"ما الشيء ذو اللون ال{ADJECTIVES[colour][0]} في الصورة؟"

    def size(self, group: Group) -> str:
        large, small = (self.size_of(group, size) for size in ("large", "small"))
        return f"هل {self.the(group.kind, group.count)} {large} أم {small}؟"

    def comparison(self, first: str, second: str, *, larger: bool) -> str:
        return f"أيهما {'أكبر' if larger else 'أصغر'}: {self.the(first)} أم {self.the(second)}؟"

    def existence(self, kind: str) -> str:
        noun = NOUNS[kind]
        return f"هل {'توجد' if noun.gender == 'f' else 'يوجد'} {noun.singular} في الصورة؟"

    def class_existence(self, name: str) -> str:
        gender, indefinite, _ = CLASS_NAMES[name]
        return f"هل {'توجد' if gender == 'f' else 'يوجد'} {indefinite} في الصورة؟"

    def background(self) -> str:
        return "ما خلفية الصورة؟"

    def class_member(self, name: str) -> str:
        gender, _, definite = CLASS_NAMES[name]
        return f"ما {definite} {'الموجودة' if gender == 'f' else 'الموجود'} في الصورة؟"

    def beside(self, direction: str, kind: str) -> str:
        return f"ماذا يوجد {BESIDE[direction]} {NOUNS[kind].definite}؟"

    def is_beside(self, first: str, direction: str, second: str) -> str:
        return f"هل {NOUNS[first].definite} {BESIDE[direction]} {NOUNS[second].definite}؟"

    def is_colour(self, group: Group, colour: str) -> str:
        gender = NOUNS[group.kind].gender
        return f"هل {self.the(group.kind, group.count)} {adjective(colour, gender, group.count)}؟"

    def same_colour(self, first: str, second: str) -> str:
        return f"هل {NOUNS[first].definite} و{NOUNS[second].definite} باللون نفسه؟"

    def more(self, first: str, second: str) -> str:
        return f"هل عدد {NOUNS[first].definite_plural} أكبر من عدد {NOUNS[second].definite_plural}؟"
