import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_evaluation.yes_no import polarity, yes_no, yes_no_options
from parrot_runtime.languages import CODES

PAIRS = {
    "en": ("Yes", "No"),
    "zh": ("是", "否"),
    "pt": ("Sim", "Não"),
    "ar": ("نعم", "لا"),
    "tr": ("Evet", "Hayır"),
    "ru": ("Да", "Нет"),
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("form", ["{}", "{}.", "{}!", " {}\n", '"{}"', "**{}**"])
def test_the_bare_word(code: str, form: str) -> None:
    yes, no = PAIRS[code]
    for word in (yes, yes.upper(), yes.lower()):
        assert yes_no(form.format(word), code) == "yes"
    for word in (no, no.upper(), no.lower()):
        assert yes_no(form.format(word), code) == "no"


@pytest.mark.parametrize(
    ("answer", "code", "expected"),
    [
        ("Yes, there is a cat.", "en", "yes"),
        ("No, there is no cat.", "en", "no"),
        ("There is a cat.", "en", None),
        ("Yes and no", "en", "yes"),
        ("是的，图中有一只猫。", "zh", "yes"),
        ("不是，图中是一只狗。", "zh", "no"),
        ("没有。", "zh", "no"),
        ("有的", "zh", "yes"),
        ("图中没有猫。", "zh", "no"),
        ("图中有一只猫。", "zh", "yes"),
        ("没错，是猫。", "zh", "yes"),
        ("不对", "zh", "no"),
        ("Sim, há um gato na imagem.", "pt", "yes"),
        ("Não, o gato não está aqui.", "pt", "no"),
        ("A resposta é sim.", "pt", "yes"),
        ("No centro há um gato.", "pt", None),
        ("نعم، توجد قطة في الصورة.", "ar", "yes"),
        ("لا، لا توجد قطة.", "ar", "no"),
        ("لا يوجد", "ar", "no"),
        ("Evet, resimde bir kedi var.", "tr", "yes"),
        ("Hayır, resimde kedi yok.", "tr", "no"),
        ("Resimde kedi yok.", "tr", "no"),
        ("Resimde bir kedi var.", "tr", "yes"),
        ("HAYIR", "tr", "no"),
        ("Bu bir kedi değil.", "tr", "no"),
        ("Да, на картинке есть кошка.", "ru", "yes"),
        ("Нет, кошки нет.", "ru", "no"),
        ("На картинке нет кошки.", "ru", "no"),
        ("Yes, there is.", "tr", "yes"),
        ("No.", "ru", "no"),
        ("No.", "zh", "no"),
        ("", "en", None),
        ("…", "tr", None),
        ("42", "ar", None),
    ],
)
def test_sentences(answer: str, code: str, expected: str | None) -> None:
    assert yes_no(answer, code) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"A": "Yes", "B": "No"}, {"yes": "A", "no": "B"}),
        ({"A": "没有", "B": "有"}, {"yes": "B", "no": "A"}),
        ({"A": "Verdadeiro", "B": "Falso"}, {"yes": "A", "no": "B"}),
        ({"A": "Yes", "B": "No", "C": "Maybe"}, None),
        ({"A": "left", "B": "right"}, None),
        ({"A": "Yes", "B": "Sim"}, None),
        ({}, None),
    ],
)
def test_options(options: dict, expected: dict | None) -> None:
    assert yes_no_options(options) == expected


def test_polarity_wants_the_whole_text() -> None:
    assert polarity("yes sir") is None


@settings(deadline=None)
@given(st.text(), st.sampled_from(CODES))
def test_any_text_is_read_without_error(text: str, code: str) -> None:
    assert yes_no(text, code) in ("yes", "no", None)
