"""The language of an answer, in sentences and in short answers; what cannot be known must come back as None."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_runtime.language_id import identify, in_language
from parrot_runtime.languages import CODES
from parrot_runtime.lexicon import SHARED, WHOLE_ANSWERS, WORDS

SENTENCES = {
    "en": ["There are three birds in the tree.", "A small red car on the left.", "Yes.", "No.", "Two apples", "White"],
    "zh": ["树上有三只鸟。", "左边有一辆红色的小汽车。", "是", "没有。", "两个苹果", "白色", "猫"],
    "pt": [
        "Há três pássaros na árvore.",
        "Um carro vermelho à esquerda.",
        "Sim.",
        "Não.",
        "É.",
        "Duas maçãs",
        "Branco",
    ],
    "ar": ["هناك ثلاثة طيور على الشجرة.", "سيارة حمراء صغيرة على اليسار.", "نعم.", "لا", "تفاحتان", "أبيض"],
    "tr": ["Ağaçta üç kuş var.", "Solda küçük kırmızı bir araba.", "Evet.", "Hayır.", "İki elma", "Beyaz", "IŞIK"],
    "ru": ["На дереве три птицы.", "Маленькая красная машина слева.", "Да.", "Нет.", "Два яблока", "Белый"],
}


@pytest.mark.parametrize("code", CODES)
def test_sentences_and_short_answers(code: str) -> None:
    assert {text: identify(text) for text in SENTENCES[code]} == dict.fromkeys(SENTENCES[code], code)


@pytest.mark.parametrize("asked", CODES)
def test_in_the_language_asked(asked: str) -> None:
    for code, texts in SENTENCES.items():
        assert {in_language(text, asked) for text in texts} == {code == asked}


@pytest.mark.parametrize(
    "text", ["", " ", "A", "b.", "(C)", "А", "В.", "أ", "ب)", "42", "3.14", "?!", "A1", "😀", "B\n", "\ud800", "C, D"]
)
def test_letters_digits_and_signs_are_undetermined(text: str) -> None:
    assert identify(text) is None
    assert {in_language(text, code) for code in CODES} == {None}


@pytest.mark.parametrize("text", ["taxi", "animal", "banana", "Top", "Animal real", "Kino"])
def test_words_of_several_languages_are_undetermined(text: str) -> None:
    assert identify(text) is None


def test_a_shared_word_speaks_against_the_third_language() -> None:
    # "curling" alone looks English; "de" is Portuguese or Turkish, so nothing is left to decide.
    assert identify("curling") == "en"
    assert identify("de curling") is None
    assert identify("pedra de curling") is None
    assert identify("uma pedra de curling") == "pt"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("图中有一只cat", "zh"),
        ("the 猫 is sitting on a chair", "en"),
        ("Это cat", None),  # three letters each
        ("На картинке cat", "ru"),
        ("猫猫 кошк", None),  # a Han character weighs two letters
    ],
)
def test_mixed_answers_go_by_weight(text: str, expected: str | None) -> None:
    assert identify(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "これは猫です",
        "고양이",
        "Цей кіт сидить тут",
        "گربه روی میز است",
        "Η γάτα",
        "חתול",
        "แมว",
        "पानी",
        "мачка је овде",
    ],
)
def test_neighbours_are_told_by_letters_of_their_own(text: str) -> None:
    assert identify(text) == "other"


@pytest.mark.parametrize(("text", "code"), [("猫", "zh"), ("Котка", "ru"), ("مرد بزرگ"[:3], "ar")])
def test_without_such_letters_they_are_taken_for_the_neighbour(text: str, code: str) -> None:
    assert identify(text) == code  # Japanese, Bulgarian, Persian: a documented limit


def test_the_word_lists_are_disjoint_and_lower_case() -> None:
    lists = list(WORDS.values())
    for number, words in enumerate(lists):
        for other in lists[number + 1 :]:
            assert not words & other
        assert all(word == word.replace("İ", "i").casefold() for word in words)
        # Option letters are dropped before the lists are asked.
        assert not [word for word in words if len(word) == 1 and word not in "éà"]
        assert not words & set(SHARED)
    assert set(WHOLE_ANSWERS) <= set(SHARED)
    assert all(len(pair) == 2 and set(pair) < set(WORDS) for pair in SHARED.values())


def test_no_listed_word_breaks_its_own_alphabet() -> None:
    # Turkish has no q, w, x; Portuguese writes k, w, y in loans only; English has no letters of its own here.
    assert not [word for word in WORDS["tr"] if set(word) & set("qwx")]
    assert not [word for word in WORDS["pt"] if set(word) & set("kwy")]
    assert all(word.replace("'", "").isascii() for word in WORDS["en"])


@settings(deadline=None)
@given(st.text(), st.sampled_from(CODES))
def test_any_text_has_a_verdict(text: str, code: str) -> None:
    assert identify(text) in (*CODES, "other", None)
    assert in_language(text, code) in (True, False, None)


@pytest.mark.parametrize(
    ("asked", "text", "verdict"),
    [
        ("es", "Dos manzanas rojas grandes en el lado izquierdo.", True),
        ("es", "Duas maçãs vermelhas grandes à esquerda.", False),
        ("es", "Two large red apples.", False),
        ("es", "No.", None),  # three languages write it so
        ("es", "A", None),
        ("de", "Ein großer roter Apfel oben links.", True),
        ("de", "Weiß.", True),
        ("de", "A large red apple in the top left.", False),
        ("de", "Büyük kırmızı bir elma.", False),
        ("de", "苹果", False),
    ],
)
def test_further_languages_are_known_where_they_are_asked_for(asked, text, verdict):
    assert in_language(text, asked) is verdict


def test_further_languages_change_no_verdict_of_the_six():
    assert identify("Dos manzanas rojas en la mesa", "pt") == identify("Dos manzanas rojas en la mesa")
    assert in_language("Não há nada.", "pt") is True
