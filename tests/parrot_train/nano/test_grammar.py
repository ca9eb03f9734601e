"""All grammars against sentences a native speaker would write."""

import re

import pytest

from parrot_runtime.languages import BY_CODE
from parrot_train.nano.grammar import GRAMMARS, ar, ru, tr
from parrot_train.nano.scenes import BACKGROUNDS, CLASSES, COLOURS, KINDS, SIZES, Group


def group(kind: str, colour: str, count: int = 1, size: str = "large") -> Group:
    return Group(kind, colour, size, tuple(range(count)))


PHRASES = [
    ("en", "orange", "apple", 1, "a large orange apple"),
    ("en", "red", "leaf", 3, "three large red leaves"),
    ("zh", "red", "apple", 2, "两个红色的大苹果"),
    ("zh", "blue", "car", 1, "一辆蓝色的大汽车"),
    ("zh", "white", "fish", 5, "五条白色的大鱼"),
    ("zh", "green", "boat", 3, "三艘绿色的大船"),
    ("pt", "red", "apple", 2, "duas maçãs vermelhas grandes"),
    ("pt", "blue", "car", 4, "quatro carros azuis grandes"),
    ("pt", "orange", "lemon", 2, "dois limões laranja grandes"),
    ("pt", "brown", "flower", 1, "uma flor marrom grande"),
    ("ar", "red", "apple", 1, "تفاحة حمراء كبيرة"),
    ("ar", "red", "apple", 2, "تفاحتان حمراوان كبيرتان"),
    ("ar", "red", "apple", 3, "ثلاث تفاحات حمراء كبيرة"),
    ("ar", "blue", "boat", 1, "قارب أزرق كبير"),
    ("ar", "blue", "boat", 2, "قاربان أزرقان كبيران"),
    ("ar", "blue", "boat", 5, "خمسة قوارب زرقاء كبيرة"),
    ("ar", "white", "leaf", 2, "ورقتا شجر بيضاوان كبيرتان"),
    ("ar", "pink", "kite", 2, "طائرتان ورقيتان ورديتان كبيرتان"),
    ("tr", "red", "apple", 1, "büyük kırmızı bir elma"),
    ("tr", "red", "apple", 3, "üç büyük kırmızı elma"),
    ("ru", "red", "apple", 1, "большое красное яблоко"),
    ("ru", "red", "apple", 2, "два больших красных яблока"),
    ("ru", "blue", "car", 1, "большая синяя машина"),
    ("ru", "blue", "car", 2, "две большие синие машины"),
    ("ru", "blue", "car", 5, "пять больших синих машин"),
    ("ru", "green", "chair", 3, "три больших зелёных стула"),
    ("ru", "white", "balloon", 6, "шесть больших белых воздушных шаров"),
    ("es", "red", "apple", 1, "una manzana roja grande"),
    ("es", "brown", "fish", 1, "un pez marrón grande"),
    ("es", "brown", "fish", 3, "tres peces marrones grandes"),
    ("es", "orange", "lemon", 2, "dos limones naranja grandes"),
    ("de", "red", "apple", 1, "ein großer roter Apfel"),
    ("de", "blue", "pear", 1, "eine große blaue Birne"),
    ("de", "orange", "leaf", 1, "ein großes orangefarbenes Blatt"),
    ("de", "pink", "hat", 1, "ein großer rosa Hut"),
    ("de", "green", "cactus", 4, "vier große grüne Kakteen"),
]


@pytest.mark.parametrize(("code", "colour", "kind", "count", "expected"), PHRASES)
def test_agreement_of_number_gender_and_colour(code, colour, kind, count, expected):
    assert GRAMMARS[code].phrase(group(kind, colour, count), size=True) == expected


CAPTIONS = {
    "en": "Two large red apples and a large blue boat in a meadow.",
    "zh": "草地上有两个红色的大苹果和一艘蓝色的大船。",
    "pt": "Duas maçãs vermelhas grandes e um barco azul grande em um campo.",
    "ar": "تفاحتان حمراوان كبيرتان وقارب أزرق كبير في مرج.",
    "tr": "Çayırda iki büyük kırmızı elma ve büyük mavi bir tekne var.",
    "ru": "Два больших красных яблока и большая синяя лодка на лугу.",
    "es": "Dos manzanas rojas grandes y un barco azul grande en un prado.",
    "de": "Zwei große rote Äpfel und ein großes blaues Boot auf einer Wiese.",
}


@pytest.mark.parametrize("code", GRAMMARS)
def test_captions(code):
    groups = [group("apple", "red", 2), group("boat", "blue")]
    assert GRAMMARS[code].caption(groups, "meadow") == CAPTIONS[code]


QUESTIONS = [
    ("en", lambda g: g.colour(group("leaf", "red", 2)), "What colour are the leaves?"),
    ("en", lambda g: g.existence("airplane"), "Is there an airplane in the picture?"),
    ("zh", lambda g: g.count("fish"), "图中有几条鱼？"),
    ("pt", lambda g: g.beside("left", "apple"), "O que está à esquerda da maçã?"),
    ("pt", lambda g: g.beside("above", "boat"), "O que está acima do barco?"),
    ("pt", lambda g: g.count("car"), "Quantos carros há na imagem?"),
    ("ar", lambda g: g.colour(group("apple", "red", 2)), "ما لون التفاحتين؟"),
    ("ar", lambda g: g.is_colour(group("boat", "red", 2), "blue"), "هل القاربان أزرقان؟"),
    ("ar", lambda g: g.count("boat"), "كم قاربًا في الصورة؟"),
    ("ar", lambda g: g.existence("bus"), "هل توجد حافلة في الصورة؟"),
    ("tr", lambda g: g.object()[0], "Görselde ne var?"),
    ("tr", lambda g: g.beside("left", "tree"), "Ağacın solunda ne var?"),
    ("tr", lambda g: g.comparison("bird", "ball", larger=True), "Hangisi daha büyük, kuş mu top mu?"),
    ("tr", lambda g: g.is_colour(group("lemon", "green", 2), "green"), "Limonlar yeşil mi?"),
    ("ru", lambda g: g.count("lemon"), "Сколько лимонов на картинке?"),
    ("ru", lambda g: g.beside("right", "cactus"), "Что находится справа от кактуса?"),
    ("ru", lambda g: g.with_colour("blue"), "Что на картинке синего цвета?"),
    ("ru", lambda g: g.class_member("toy"), "Какая игрушка на картинке?"),
    ("es", lambda g: g.beside("left", "boat"), "¿Qué hay a la izquierda del barco?"),
    ("es", lambda g: g.is_beside("cat", "above", "lamp"), "¿El gato está por encima de la lámpara?"),
    ("es", lambda g: g.count("cup"), "¿Cuántas tazas hay en la imagen?"),
    ("es", lambda g: g.size(group("shirt", "red", 2)), "¿Las camisas son grandes o pequeñas?"),
    ("de", lambda g: g.beside("left", "tree"), "Was ist links vom Baum?"),
    ("de", lambda g: g.beside("right", "lamp"), "Was ist rechts von der Lampe?"),
    ("de", lambda g: g.beside("above", "boat"), "Was ist über dem Boot?"),
    ("de", lambda g: g.class_member("household"), "Welcher Haushaltsgegenstand ist auf dem Bild?"),
    ("de", lambda g: g.class_member("toy"), "Welches Spielzeug ist auf dem Bild?"),
    ("de", lambda g: g.is_colour(group("leaf", "red", 2), "green"), "Sind die Blätter grün?"),
]


@pytest.mark.parametrize(("code", "ask", "expected"), QUESTIONS)
def test_questions(code, ask, expected):
    assert ask(GRAMMARS[code]) == expected


def test_turkish_genitives_soften_and_harmonise():
    expected = [
        "elmanın",
        "armudun",
        "limonun",
        "kedinin",
        "balığın",
        "kuşun",
        "kelebeğin",
        "otobüsün",
        "ağacın",
        "çiçeğin",
        "topun",
    ]
    kinds = ["apple", "pear", "lemon", "cat", "fish", "bird", "butterfly", "bus", "tree", "flower", "ball"]
    assert [tr.genitive(kind) for kind in kinds] == expected


@pytest.mark.parametrize(
    ("word", "expected"), [("kırmızı", "mı"), ("yeşil", "mi"), ("mor", "mu"), ("küçük", "mü"), ("solunda", "mı")]
)
def test_turkish_question_particle(word, expected):
    assert tr.particle(word) == f"{word} {expected}"


def test_turkish_capital_i_keeps_its_dot():
    assert GRAMMARS["tr"].sentence("iki elma") == "İki elma."


def test_russian_numbers_take_the_gender_of_their_noun():
    assert [ru.numeral(gender, 1) for gender in "mfn"] == ["один", "одна", "одно"]
    assert [ru.numeral(gender, 2) for gender in "mfn"] == ["два", "две", "два"]


def test_arabic_numbers_take_the_opposite_gender():
    g = GRAMMARS["ar"]
    assert (g.number_of("apple", 3), g.number_of("boat", 3)) == ("ثلاث", "ثلاثة")
    assert ar.NOUNS["shoe"].dual == "حذاءان"


def test_one_alone_is_another_word_than_one_before_a_noun():
    spanish, german = GRAMMARS["es"], GRAMMARS["de"]
    assert [spanish.number_of(kind, 1) for kind in ("cat", "apple", None)] == ["uno", "una", "uno"]
    assert [spanish.one(kind) for kind in ("cat", "apple")] == ["un gato", "una manzana"]
    assert [german.number_of(kind, 1) for kind in ("apple", "pear", "boat", None)] == ["einer", "eine", "eins", "eins"]


# Letters a language may use, apart from the punctuation of its questions.
SCRIPTS = {
    "Latin": r"[A-Za-zÀ-ÿĞğİıŞş]",
    "Han": r"[一-鿿]",
    "Arabic": r"[\u0620-\u0652]",
    "Cyrillic": r"[А-Яа-яЁё]",
}


@pytest.mark.parametrize("code", GRAMMARS)
def test_every_sentence_is_in_its_script_and_well_formed(code):
    g = GRAMMARS[code]
    texts = [*g.object(), *g.describe(), g.which_present(), g.absent(), g.total(), g.background()]
    for kind in KINDS:
        texts += [g.one(kind), g.the(kind), g.missing(kind), g.count(kind), g.position(kind), g.existence(kind)]
        texts += [g.beside(direction, kind) for direction in ("left", "right", "above", "below")]
        texts += [g.number_of(kind, count) for count in range(1, 7)]
        for colour in COLOURS:
            for count in range(1, 7):
                each = group(kind, colour, count)
                texts += [g.phrase(each), g.phrase(each, size=True), g.colour(each), g.is_colour(each, colour)]
    texts += [g.located(group("cat", "red", 1, size), cell) for size in SIZES for cell in range(9)]
    texts += [g.scenery(background) for background in BACKGROUNDS]
    texts += [g.class_member(name) for name in CLASSES] + [g.class_existence(name) for name in CLASSES]
    letters = re.compile(rf"({SCRIPTS[BY_CODE[code].script]}|[ ,.:?¿،؟，。？、؛;])+")
    for text in texts:
        assert letters.fullmatch(text), text
        assert "  " not in text
        assert text == text.strip()
