"""Answers that turn options down, beside answers that only look as if they did."""

import pytest

from parrot_evaluation.extract import extract_letter

OPTIONS = {
    "en": {"A": "a dog", "B": "a cat", "C": "horse", "D": "a bird"},
    "zh": {"A": "狗", "B": "猫", "C": "马", "D": "鸟"},
    "pt": {"A": "cachorro", "B": "gato", "C": "cavalo", "D": "pássaro"},
    "ar": {"A": "كلب", "B": "قطة", "C": "حصان", "D": "طائر"},
    "tr": {"A": "köpek", "B": "kedi", "C": "at", "D": "kuş"},
    "ru": {"A": "собака", "B": "кошка", "C": "лошадь", "D": "птица"},
}


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("en", "The answer cannot be A"),
        ("en", "Option A is wrong."),
        ("en", "It is not a dog"),
        ("en", "There is no horse in the picture."),
        ("en", "It is neither A nor B."),
        ("en", "A and B are wrong."),
        ("zh", "选项A不正确。"),
        ("zh", "图中没有马。"),
        ("pt", "A opção A está errada."),
        ("pt", "Não há nenhum cavalo."),
        ("ar", "الخيار أ خاطئ."),
        ("ar", "لا يوجد حصان في الصورة"),
        ("tr", "B seçeneği yanlış."),
        ("tr", "Cevap A değil."),
        ("tr", "Resimde at yok."),
        ("tr", "Doğru cevap A değil."),
        ("ru", "Вариант A неверный."),
        ("ru", "Вариант А неверный."),
        ("ru", "Это не лошадь."),
    ],
)
def test_what_is_turned_down_is_not_picked(language: str, answer: str) -> None:
    assert extract_letter(answer, OPTIONS[language], language).letter is None


@pytest.mark.parametrize(
    ("language", "answer", "letter"),
    [
        ("en", "Option C is wrong; the right one is B.", "B"),
        ("en", "Option C is incorrect, so B", "B"),
        ("en", "The answer is B, not A.", "B"),
        ("en", "It isn't A. The answer is B.", "B"),
        ("en", "Not a dog but a cat.", "B"),
        ("en", "A is not correct, B is not correct, C is not correct, D is correct.", "D"),
        ("zh", "不是狗，是猫。", "B"),
        ("zh", "答案是A，不是B。", "A"),
        ("pt", "Não é um cachorro, é um gato.", "B"),
        ("pt", "A alternativa A é incorreta; a correta é a B.", "B"),
        ("ar", "ليس كلبا بل قطة", "B"),
        ("ar", "الإجابة هي أ وليس ب", "A"),
        ("tr", "Köpek değil, kedi.", "B"),
        ("tr", "Resimde köpek yok, kedi var.", "B"),
        ("tr", "Doğru cevap A, B değil.", "A"),
        ("tr", "Cevap A değil, cevap B.", "B"),
        ("ru", "Это не собака, а кошка.", "B"),
        ("ru", "Правильный ответ A, а не B.", "A"),
    ],
)
def test_what_is_given_beside_it_is(language: str, answer: str, letter: str) -> None:
    assert extract_letter(answer, OPTIONS[language], language).letter == letter


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("en", "No, a dog."),
        ("en", "No. The animal is a dog."),
        ("en", "There is no doubt: a dog."),
        ("pt", "No centro há um cachorro."),
        ("ru", "Нет, собака."),
        ("ru", "А не кошка. Ответ: A"),
    ],
)
def test_a_no_that_is_not_said_of_it_costs_nothing(language: str, answer: str) -> None:
    assert extract_letter(answer, OPTIONS[language], language).letter == "A"
